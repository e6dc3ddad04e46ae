"""Episodes over characters: learning to tell five new characters apart from one or five pictures of each.

Characters of twelve fonts, slightly turned and shifted, see `font_characters`: those of the Latin, Greek and Cyrillic
alphabets are trained on, the Armenian and Georgian ones tested. Every method sees as many pictures. `interval` is half
of the 95 % one. The network is the ResNet of the images' section at 28 pixels; where it adapts by gradients on a few
pictures its batch norms, whose stored statistics would not adapt, are group norms (`bit`). What MAML, first-order MAML
and Reptile learnt is what they have over random weights that adapt alike, by the rate of MAML. The paper
takes 60,000 steps, these are 600 with one picture and 300 with five: they have not settled.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from cells import COMMON, data_folder
from datasets import Dataset
from pretraining_images import CONV

from hf_transfer.data.bundled import load
from hf_transfer.data.font_characters import SIZE
from hf_transfer.data.prepare import prepare
from hf_transfer.evaluation.few_shot import FewShotSettings, evaluate_few_shot
from hf_transfer.evaluation.meta_learning import evaluate_adaptation
from hf_transfer.few_shot.adaptation import AdaptingObjective
from hf_transfer.few_shot.maml import MAML
from hf_transfer.runs.adapt import make_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.training.transfer_model import make_objectives

WAYS, QUERIES, PICTURES, EPISODES = 5, 3, 24_000, 100
SUPERVISED = "supervised, then prototypes"
NETWORK = {**CONV, "num_channels": 1, "image_size": SIZE}
UNTRAINED, ADAPTED = "random weights, prototypes", "random weights, adapted"
INNER = {"inner_learning_rate": 0.5, "inner_steps": 3}
KINDS: dict[str, dict[str, Any]] = {
    UNTRAINED: {},
    SUPERVISED: {},
    "prototypical": {"prototypical": {}},
    ADAPTED: {"maml": INNER},
    "maml": {"maml": INNER},
    "fomaml": {"maml": {**INNER, "first_order": True}},
    "reptile": {"reptile": {"inner_learning_rate": 0.05, "inner_steps": 5}},
}
ROWS = [f"{kind}, {shots} shot" for shots in (1, 5) for kind in KINDS]


DATA = {
    "train": partial(load, "font_characters", "train"),
    "test": partial(load, "font_characters", "test"),
}


def measure(row: str, seed: int, folder: Path, quick: bool) -> dict[str, float]:
    """Train, and measure over episodes of the characters left out."""
    name, shots = row.rsplit(", ", 1)[0], int(row.rsplit(", ", 1)[1].split()[0])
    episode = {"ways": WAYS, "shots": shots, "queries": QUERIES}
    objectives = {key: {**episode, **words} for key, words in KINDS[name].items()}
    at_once = 1 if name == "prototypical" else 2
    rows_at_once = WAYS * (shots + QUERIES) * (at_once if objectives else 2)
    for key in set(objectives) - {"prototypical"}:
        objectives[key]["episodes_per_batch"] = at_once
    settings: dict[str, Any] = {**COMMON, "dataset": data_folder(DATA, "train", folder.parent), "seed": seed}
    settings |= {"task": "image-classification", "architecture": NETWORK, "test_rows": 50}
    settings |= {"per_device_train_batch_size": rows_at_once, "max_steps": 2 if quick else PICTURES // rows_at_once}
    settings |= {"learning_rate": 2e-3, "objectives": objectives, "logging_steps": 100, "augmentation": {}}
    settings |= {"task_loss_weight": 0.0 if objectives else 1.0, "per_device_eval_batch_size": 128}
    if adapting(objectives):
        settings["converters"] = {"bit": {}}
    if "reptile" in objectives:
        settings |= {"optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "linear", "warmup_steps": 0}
        settings |= {"weight_decay": 0.0, "max_grad_norm": 0.0}
    if name in (UNTRAINED, ADAPTED):
        settings |= {"learning_rate": 0.0, "max_steps": 20}
    started = time.process_time()
    trainer, _ = make_adaptation(parse_arguments([], **settings, output_dir=str(folder / "run"), overwrite=True))
    trainer.train()
    return {**accuracies(trainer, objectives, shots, folder), "seconds": time.process_time() - started}


def adapting(objectives: dict[str, Any]) -> AdaptingObjective | None:
    """The objective that adapts the network to every episode by gradients."""
    made = next(iter(make_objectives(objectives).values()), None)
    return made if isinstance(made, AdaptingObjective) else None


def accuracies(trainer: Any, objectives: dict[str, Any], shots: int, folder: Path) -> dict[str, float]:
    """In %, over episodes of new characters, and half of its 95 % interval."""
    rows = trainer_rows(trainer, folder)
    if made := adapting(objectives):
        test = MAML(WAYS, shots, QUERIES, 1, made.inner_learning_rate, made.inner_steps, first_order=True)
        found = evaluate_adaptation(trainer, rows, test, steps=(10,), episodes=EPISODES)
        accuracy, interval = found["inductive"][10]
        return {"accuracy": 100 * accuracy, "interval": 100 * interval}
    few = FewShotSettings(WAYS, shots, QUERIES, 10 * EPISODES, "prototypical")
    measured = evaluate_few_shot(trainer, rows, few)
    return {"accuracy": 100 * measured["accuracy"], "interval": 100 * measured["interval"]}


def trainer_rows(trainer: Any, folder: Path) -> Dataset:
    """The test characters as inputs of the trainer's model."""
    rows = load(data_folder(DATA, "test", folder.parent))
    return prepare(rows, trainer.adapted_model.config, trainer.processing_class)
