"""Pre-training on images without labels, measured on three small tasks: kNN, linear probe and fine-tuning.

Sources: 1,525 emoji of Google for the first two targets, MNIST-5k for the third, read at 32 pixels. Targets: the same
nine categories with 10 labels a class, the same with the pictures of Twitter, optical digits with 5 labels a class.
The features of a probe are the last state, averaged over patches or places; both probes are fitted to the few labelled
rows alone. (The class token of a masked autoencoder takes no part in its loss: of mnist_vit_mae.yaml, seed 0, it gives
a linear probe 51.1 % of the optical digits from 5 labels a class, where random weights give 56.8, and the mean 60.0,
where they give 56.7.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import COMMON, data_folder, every_fifth, logged
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hf_transfer.data.bundled import load
from hf_transfer.data.checks import column_values, label_column
from hf_transfer.modeling.anatomy import backbone_of
from hf_transfer.ranking.features import FeatureExtractor
from hf_transfer.runs.adapt import finish, make_adaptation, run_pretraining
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.training.trainer import TransferTrainer

NEIGHBOURS = 5
PROBE = "watched"
DATA = {
    **{
        f"{vendor}_{split}": partial(load, "emoji", split, options={"vendor": vendor})
        for vendor in ("google", "twitter")
        for split in ("train", "test")
    },
    "mnist_train": lambda: every_fifth("mnist5k", held_out=False),
    "mnist_test": lambda: every_fifth("mnist5k", held_out=True).select(range(500)),
    "optical_digits": partial(load, "optical_digits"),
}
"""Name -> rows, which are written to the folder of the runs once, so that every cell finds them as it reads them."""
GAUGES = ("loss", "accuracy", "rank_me", "channel_spread")
SIZE = 32
CONV = {
    "model_type": "resnet",
    "image_size": SIZE,
    "embedding_size": 16,
    "hidden_sizes": [16, 32, 64],
    "depths": [1, 1, 1],
    "layer_type": "basic",
}
PATCHES = {
    "image_size": SIZE,
    "patch_size": 4,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
VIT = {"model_type": "vit", **PATCHES}
DECODER = {
    "decoder_hidden_size": 64,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 128,
    "norm_pix_loss": True,
}
MAE = {"model_type": "vit_mae", **PATCHES, **DECODER, "mask_ratio": 0.75, "initializer_range": 0.05}


@dataclass(frozen=True)
class Source:
    """Rows of a pre-training, the views of them, steps by kind of objective, and what watches the training."""

    data: dict[str, Any]
    channels: int
    views: dict[str, Any]
    steps: dict[str, int]
    probe: dict[str, Any]


SOURCES = {
    "emoji": Source(
        {"dataset": "google_train", "test_dataset": "google_test"},
        3,
        {"views": "small", "crop": 0.3},
        {"views": 1000, "labels": 150, "patches": 400, "masked": 1000, "none": 20},
        {"dataset": "google_test"},
    ),
    "mnist": Source(
        {"dataset": "mnist_train", "test_dataset": "mnist_test"},
        1,
        {"views": "small", "crop": 0.4, "flip": False},
        {"views": 500, "labels": 100, "patches": 400, "masked": 1000, "none": 20},
        {"dataset": "optical_digits", "max_samples": 300},
    ),
}
TARGETS: dict[str, tuple[str, dict[str, Any]]] = {
    "emoji": ("emoji", {"dataset": "google_train", "test_dataset": "google_test", "labels_per_class": 10}),
    "other vendor": ("emoji", {"dataset": "twitter_train", "test_dataset": "twitter_test", "labels_per_class": 10}),
    "digits": ("mnist", {"dataset": "optical_digits", "labels_per_class": 5, "test_rows": 500}),
}
"""Name -> its source, and the arguments of its data."""
VIEWS = {
    "task": "image-feature-extraction",
    "dataloader_drop_last": True,
    "per_device_train_batch_size": 64,
    "learning_rate": 3e-3,
}
LABELS = {"task": "image-classification", "per_device_train_batch_size": 64, "learning_rate": 3e-3}
MASKED = {"task": "masked-image-modeling", "per_device_train_batch_size": 64, "learning_rate": 2e-3}


def by_views(**objectives: dict) -> dict[str, Any]:
    return {**VIEWS, "architecture": CONV, "objectives": objectives, "kind": "views"}


ROWS: dict[str, dict[str, Any]] = {
    "random weights (ResNet)": {**LABELS, "architecture": CONV, "kind": "none"},
    "supervised (ResNet)": {**LABELS, "architecture": CONV, "kind": "labels"},
    "moco": by_views(moco={"queue_size": 2048, "momentum": 0.99, "projection_dim": 64}),
    "moco_v3": by_views(moco_v3={"temperature": 0.2, "projection_dim": 64, "hidden_size": 256}),
    "simclr": by_views(simclr={"temperature": 0.2, "projection_dim": 64}),
    "simsiam": by_views(simsiam={"projection_dim": 256, "hidden_size": 64}),
    "lejepa": by_views(lejepa={"hidden_size": 256, "projection_dim": 32, "directions": 256}),
    "random weights (ViT)": {**LABELS, "architecture": VIT, "kind": "none"},
    "supervised (ViT)": {**LABELS, "architecture": VIT, "kind": "patches", "learning_rate": 1e-3},
    "mae": {**MASKED, "architecture": MAE, "kind": "masked"},
}
"""Name -> arguments of the pre-training, and of which kind it is."""


def pretraining_settings(row: str, source: str, seed: int, folder: Path, quick: bool) -> dict[str, Any]:
    """The arguments of a pre-training on a source."""
    settings, chosen = {**COMMON, **ROWS[row], "seed": seed, "logging_steps": 50}, SOURCES[source]
    kind = settings.pop("kind")
    steps = 2 if quick else chosen.steps[kind]
    architecture = {**settings["architecture"], "num_channels": chosen.channels}
    settings |= {**placed(chosen.data, folder), "architecture": architecture}
    settings |= {"max_steps": steps, "per_device_eval_batch_size": 128}
    if kind in ("views", "masked"):
        settings["augmentation"] = chosen.views if kind == "views" else {**chosen.views, "views": "mae"}
        settings["transfer_probes"] = {PROBE: placed(chosen.probe, folder), "scores": ["linear_probe"]}
        settings |= {"eval_strategy": "steps", "eval_steps": max(1, steps // 3)}
    if kind == "none":
        settings["learning_rate"] = 0.0
    return settings


def placed(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The arguments of data with the folders of the sets that they name."""
    return {
        key: data_folder(DATA, value, folder) if key in ("dataset", "test_dataset") else value
        for key, value in data.items()
    }


def measure(row: str, seed: int, folder: Path, quick: bool) -> dict[str, float]:
    """Pre-train on both sources, and adapt to every target."""
    found: dict[str, float] = {}
    for source in SOURCES:
        started = time.process_time()
        settings = pretraining_settings(row, source, seed, folder.parent, quick)
        made = run_pretraining(parse_arguments([], **settings, output_dir=str(folder / source), overwrite=True))
        found[f"{source}: seconds"] = time.process_time() - started
        found |= {f"{source}: {name}": made[name] for name in GAUGES if name in made}
        found |= {f"{source}: probe {place}/3": value for place, value in watched(made.folder).items()}
        for target, (of_source, data) in TARGETS.items():
            if of_source == source:
                figures = adapted(made.folder, placed(data, folder.parent), seed, folder / "target", quick)
                found |= {f"{target}: {name}": value for name, value in figures.items()}
    return found


def watched(folder: Path) -> dict[int, float]:
    """Linear probe in % after one, two and three thirds of a pre-training that was watched."""
    values = logged(folder, f"{PROBE}_linear_probe")[:3]
    return {place: 100 * value for place, value in enumerate(values, start=1)}


def adapted(model: Path, data: dict[str, Any], seed: int, folder: Path, quick: bool) -> dict[str, float]:
    """Accuracies in % of both probes of a model's features, and of the model fine-tuned."""
    settings = {**COMMON, **data, "model": str(model), "task": "image-classification", "seed": seed}
    settings |= {"max_steps": 2 if quick else 100, "per_device_train_batch_size": 45, "learning_rate": 1e-3}
    settings |= {"per_device_eval_batch_size": 128, "head_learning_rate_multiplier": 3.0, "logging_steps": 100}
    arguments = parse_arguments([], **settings, output_dir=str(folder), overwrite=True)
    trainer, rows = make_adaptation(arguments)
    (few, known), (many, wanted) = (features_of(trainer, part) for part in (rows.train, rows.test))
    probes: dict[str, Callable] = {
        "kNN": lambda: KNeighborsClassifier(NEIGHBOURS, metric="cosine"),
        "linear probe": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
    }
    found = {name: 100 * make().fit(few, known).score(many, wanted) for name, make in probes.items()}
    return {**found, "fine-tuned": 100 * finish(trainer, arguments, rows)["accuracy"]}


def features_of(trainer: TransferTrainer, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the last state [N, D] of prepared rows, and their labels [N]."""
    column = label_column(rows, "benchmark")
    extract = FeatureExtractor(backbone_of(trainer.adapted_model))
    batches = trainer.get_test_dataloader(rows.remove_columns(column))
    features = [state for batch in batches for state in extract({"pixel_values": batch["pixel_values"]}).values()]
    return torch.cat(features).numpy(), column_values(rows, column)
