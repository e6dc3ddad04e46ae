"""Episodes over kinds of emoji: learning to tell five new kinds apart from one or five pictures of each.

Kinds are the subcategories of Google's emoji with at least ten pictures; two of three are trained on and the others
tested. The network is the ResNet of the images' section at 32 pixels. Every method sees as many pictures.
"""

from __future__ import annotations

import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from cells import COMMON, data_folder
from datasets import Dataset, concatenate_datasets
from pretraining_images import CONV

from hf_transfer.data.bundled import load, load_splits
from hf_transfer.data.prepare import prepare
from hf_transfer.evaluation.few_shot import FewShotSettings, evaluate_few_shot
from hf_transfer.evaluation.meta_learning import evaluate_adaptation
from hf_transfer.few_shot.adaptation import AdaptingObjective
from hf_transfer.few_shot.maml import MAML
from hf_transfer.runs.adapt import make_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.training.transfer_model import make_objectives

WAYS, QUERIES, LEAST, PICTURES, EPISODES = 5, 5, 10, 12_000, 60
SUPERVISED = "supervised, then prototypes"
UNTRAINED = "random weights, prototypes"
KINDS: dict[str, dict[str, Any]] = {
    UNTRAINED: {},
    SUPERVISED: {},
    "prototypical": {"prototypical": {}},
    "maml": {"maml": {"inner_learning_rate": 0.1, "inner_steps": 3}},
    "fomaml": {"maml": {"inner_learning_rate": 0.1, "inner_steps": 3, "first_order": True}},
    "reptile": {"reptile": {"inner_learning_rate": 0.05, "inner_steps": 5}},
}
ROWS = [f"{kind}, {shots} shot" for shots in (1, 5) for kind in KINDS]


@cache
def kinds() -> tuple[list[int], list[int]]:
    """The classes to train on and those to test on."""
    labels = Counter(pictures()["label"])
    large = sorted(label for label, count in labels.items() if count >= LEAST)
    return [label for place, label in enumerate(large) if place % 3], large[::3]


def pictures() -> Dataset:
    return concatenate_datasets(list(load_splits("emoji", options={"label": "subcategory"}).values()))


def of_kinds(chosen: list[int]) -> Dataset:
    rows = pictures()
    return rows.select([place for place, label in enumerate(rows["label"]) if label in set(chosen)]).flatten_indices()


DATA = {"kinds_train": lambda: of_kinds(kinds()[0]), "kinds_test": lambda: of_kinds(kinds()[1])}


def measure(row: str, seed: int, folder: Path, quick: bool) -> dict[str, float]:
    """Train, and measure over episodes of the kinds left out."""
    name, shots = row.rsplit(", ", 1)[0], int(row.rsplit(", ", 1)[1].split()[0])
    episode = {"ways": WAYS, "shots": shots, "queries": QUERIES}
    objectives = {key: {**episode, **words} for key, words in KINDS[name].items()}
    at_once = 1 if name == "prototypical" else 2
    rows_at_once = WAYS * (shots + QUERIES) * (at_once if objectives else 2)
    for key in set(objectives) - {"prototypical"}:
        objectives[key]["episodes_per_batch"] = at_once
    settings: dict[str, Any] = {**COMMON, "dataset": data_folder(DATA, "kinds_train", folder.parent), "seed": seed}
    settings |= {"task": "image-classification", "architecture": {**CONV, "num_channels": 3}, "test_rows": 50}
    settings |= {"per_device_train_batch_size": rows_at_once, "max_steps": 2 if quick else PICTURES // rows_at_once}
    settings |= {"learning_rate": 2e-3, "objectives": objectives, "logging_steps": 100, "augmentation": {}}
    settings |= {"task_loss_weight": 0.0 if objectives else 1.0, "per_device_eval_batch_size": 128}
    if "reptile" in objectives:
        settings |= {"optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "linear", "warmup_steps": 0}
        settings |= {"weight_decay": 0.0, "max_grad_norm": 0.0}
    if name == UNTRAINED:
        settings |= {"learning_rate": 0.0, "max_steps": 20}
    started = time.process_time()
    trainer, _ = make_adaptation(parse_arguments([], **settings, output_dir=str(folder / "run"), overwrite=True))
    trainer.train()
    return {**accuracies(trainer, objectives, shots, folder), "seconds": time.process_time() - started}


def accuracies(trainer: Any, objectives: dict[str, Any], shots: int, folder: Path) -> dict[str, float]:
    """In %, over episodes of new kinds, half of its 95 % interval, and that with the batch norms of the queries."""
    rows = trainer_rows(trainer, folder)
    made = next(iter(make_objectives(objectives).values()), None)
    if isinstance(made, AdaptingObjective):
        test = MAML(WAYS, shots, QUERIES, 1, made.inner_learning_rate, made.inner_steps, first_order=True)
        found = evaluate_adaptation(trainer, rows, test, steps=(10,), episodes=EPISODES)
        (accuracy, interval), (together, _) = (found[mode][10] for mode in ("inductive", "transductive"))
        return {"accuracy": 100 * accuracy, "interval": 100 * interval, "transductive": 100 * together}
    few = FewShotSettings(WAYS, shots, QUERIES, 10 * EPISODES, "prototypical")
    measured = evaluate_few_shot(trainer, rows, few)
    return {"accuracy": 100 * measured["accuracy"], "interval": 100 * measured["interval"]}


def trainer_rows(trainer: Any, folder: Path) -> Dataset:
    """The test kinds as inputs of the trainer's model."""
    rows = load(data_folder(DATA, "kinds_test", folder.parent))
    return prepare(rows, trainer.adapted_model.config, trainer.processing_class)
