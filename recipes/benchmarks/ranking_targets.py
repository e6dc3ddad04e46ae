"""The targets of ranking_truth.py: tasks to rank candidates for, and how each candidate is fine-tuned on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cells import COMMON
from datasets import Dataset
from ranking_data import book_group, emoji, images, series, split_target, translation

CHECK, PATIENCE, MOST_CHECKS = 20, 6, 30
"""Steps between two looks at held-out rows, looks without a rise that end a training, and looks at most."""
VALIDATION = 200
"""Held-out rows to stop and to choose a rate by."""
SCALES = (0.2, 1.0, 5.0)
"""The three rates of a target over its middle one."""

IMAGES = (
    "flow_mnist",
    "flow_mnist_relu",
    "flow_mnist_turned",
    "flow_optical_digits",
    "flow_mnist_masked",
    "flow_photos",
    "flow_emoji",
    "flow_image_random",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
)
TEXTS = (
    "minilm_6_layers",
    "minilm_3_layers",
    "minilm_2_layers",
    "minilm_1_layer",
    "minilm_random",
    "flow_book_group",
    "flow_translation",
    "flow_wikipedia",
    "flow_bible_masked",
    "flow_text_random",
)
SERIES = (
    "flow_arrow_head",
    "flow_arrow_head_deep",
    "flow_osu_leaf",
    "flow_osu_leaf_deep",
    "flow_gun_point",
    "flow_gun_point_deep",
    "flow_acsf1",
    "flow_pickup_gesture",
    "flow_pickup_gesture_deep",
    "flow_series_random",
)


@dataclass(frozen=True)
class Target:
    """A task to rank for: its rows, its candidates, and the middle rate that they are fine-tuned at."""

    task: str
    make_rows: Callable[[], Dataset]
    train_rows: int
    test_rows: int
    candidates: tuple[str, ...]
    rate: float
    max_length: int | None = None

    @property
    def rates(self) -> tuple[float, ...]:
        return tuple(float(f"{scale * self.rate:g}") for scale in SCALES)


TARGETS = {
    "optical_digits": Target(
        "image-classification", partial(images, "optical_digits", 1), 200, 490, IMAGES, rate=1e-3
    ),
    "emoji": Target("image-classification", partial(emoji, "twitter"), 450, 1000, IMAGES, rate=1e-3),
    "book_group": Target(
        "text-classification", partial(book_group, "kjv", 1), 600, 1000, TEXTS, rate=4e-4, max_length=32
    ),
    "italy_power_demand": Target(
        "time-series-classification", partial(series, "italy_power_demand"), 67, 800, SERIES, rate=1e-3
    ),
    "translation": Target("text-classification", partial(translation, 1), 600, 1000, TEXTS, rate=4e-4, max_length=32),
    "mnist5k": Target("image-classification", partial(images, "mnist5k", 1), 200, 1000, IMAGES, rate=1e-3),
}


def rows_of(name: str, runs_dir: Path) -> dict[str, str]:
    """The folders of the rows of a target, `train`, `validation` and `test`; written now unless they are there."""
    folder, target = (runs_dir / "targets" / name).resolve(), TARGETS[name]
    if not folder.exists():
        sizes = {"train": target.train_rows, "validation": VALIDATION, "test": target.test_rows}
        split_target(target.make_rows(), sizes).save_to_disk(folder)
    return {split: str(folder / split) for split in ("train", "validation", "test")}


def settings_of(target: Target, rows: Mapping[str, str], seed: int) -> dict[str, Any]:
    """Arguments of a fine-tuning, the model and the rate apart."""
    return {
        **COMMON,
        "dataset": rows["train"],
        "test_dataset": rows["validation"],
        "task": target.task,
        "max_steps": CHECK * MOST_CHECKS,
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 50,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": CHECK,
        "weight_decay": 0.01,
        "eval_strategy": "steps",
        "eval_steps": CHECK,
        "save_strategy": "best",
        "save_total_limit": 1,
        "metric_for_best_model": "eval_accuracy",
        "load_best_model_at_end": True,
        "early_stopping_patience": PATIENCE,
        "logging_steps": CHECK,
        "seed": seed,
        "use_cpu": True,
        **({} if target.max_length is None else {"max_length": target.max_length}),
    }
