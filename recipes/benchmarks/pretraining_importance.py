"""Domain adaptive transfer: classes of the source drawn as often as the target has them, against all alike.

Source: nine categories of Google's emoji. Target: the subcategories of Twitter's food and animals with five labels
each. The first run draws evenly and is the classifier that says how the target looks; the second draws as many rows by
importance. Both are adapted to the target alike.
"""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from pathlib import Path

from cells import COMMON, data_folder
from datasets import ClassLabel, Dataset
from pretraining_images import CONV, adapted
from pretraining_images import DATA as PICTURES

from hf_transfer.data.bundled import load
from hf_transfer.runs.adapt import run_pretraining
from hf_transfer.runs.arguments import parse_arguments

ROWS = ("uniform", "importance")
CATEGORIES = ("Food & Drink", "Animals & Nature")
LABELS, STEPS = 5, 200


def target(split: str) -> Dataset:
    """Twitter's pictures of the categories, with the subcategories that have enough pictures as classes."""
    options = {"vendor": "twitter"}
    category = load("emoji", split, options=options)
    rows = load("emoji", split, options={**options, "label": "subcategory"})
    every = load("emoji", "train", options={**options, "label": "subcategory"})
    of_category = load("emoji", "train", options=options)
    known = category.features["label"].names
    inside = [known[label] in CATEGORIES for label in of_category["label"]]
    counts = Counter(label for label, is_in in zip(every["label"], inside) if is_in)
    kept = sorted(label for label, count in counts.items() if count > LABELS)
    names = [rows.features["label"].names[label] for label in kept]
    chosen = rows.select([place for place, label in enumerate(rows["label"]) if label in kept]).flatten_indices()
    numbers = [kept.index(label) for label in chosen["label"]]
    return chosen.remove_columns("label").add_column("label", numbers).cast_column("label", ClassLabel(names=names))


DATA = {"google_train": PICTURES["google_train"], "google_test": PICTURES["google_test"]}
DATA |= {f"target_{split}": partial(target, split) for split in ("train", "test")}


def measure(row: str, seed: int, folder: Path, quick: bool) -> dict[str, float]:
    """Pre-train evenly, by importance after that where it is asked for, and adapt."""
    places = {name: data_folder(DATA, name, folder.parent) for name in DATA}
    settings = {**COMMON, "dataset": places["google_train"], "test_dataset": places["google_test"], "seed": seed}
    settings |= {"task": "image-classification", "architecture": {**CONV, "num_channels": 3}, "augmentation": {}}
    settings |= {"max_steps": 2 if quick else STEPS, "per_device_train_batch_size": 64, "learning_rate": 3e-3}
    settings |= {"per_device_eval_batch_size": 128, "logging_steps": 100}
    started = time.process_time()
    made = run_pretraining(parse_arguments([], **settings, output_dir=str(folder / "uniform"), overwrite=True))
    if row == "importance":
        settings["dat"] = {"classifier": str(made.folder), "target": places["target_train"], "max_weight": 10.0}
        made = run_pretraining(parse_arguments([], **settings, output_dir=str(folder / "drawn"), overwrite=True))
    data = {"dataset": places["target_train"], "test_dataset": places["target_test"], "labels_per_class": LABELS}
    found = adapted(made.folder, data, seed, folder / "target", quick)
    return {"accuracy on the source": 100 * made["accuracy"], **found, "seconds": time.process_time() - started}
