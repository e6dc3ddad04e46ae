"""Whether a method fits a model, and what training it costs: measured on a few steps before anything is trained."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Mapping, Sized
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.lifecycle.progress import Progress
from hf_transfer.runs.lifecycle.store import Store, from_main
from hf_transfer.runs.lifecycle.training import Training
from hf_transfer.runs.single_run import make_adaptation, make_pretraining

STANDS_IN = "stands_in"
"""Of a candidate that is random weights in the place of a model which the plan is going to pre-train."""
STEPS = 4
"""Steps that are measured; the first one, which is slower, does not count."""
UNMEASURED = {
    *("save_strategy", "save_steps", "save_total_limit", "logging_steps"),
    *("load_best_model_at_end", "metric_for_best_model", "early_stopping_patience"),
}
FORWARD_SHARE = 1 / 3
"""Of the time of a step that its forward pass takes: the backward pass takes twice as long."""


class Watch(TrainerCallback):
    """Time of every step, and the most memory that was in use at the end of one."""

    def __init__(self):
        self.ends: list[float] = []
        self.memory = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())
        self.memory = max(self.memory, memory_in_use())


def memory_in_use() -> int:
    """Bytes: the most that the accelerator held, or else what this process holds."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return psutil.Process().memory_info().rss


def measure(training: Training, store: Store, progress: Progress, steps: int = STEPS) -> dict[str, Any]:
    """`start` (seconds until the first step), `step` (seconds of one), `memory` (bytes), `parameters` and `rows`.

    Args:
        training: as it would be trained.
        store: of finished pieces.
        progress: whose log gets what is printed.
        steps: to take; 0 only makes the trainer, which says whether the method fits model and rows.

    Raises:
        ValueError: the method does not fit the model or the rows; it names both.
    """
    name, depends = f"measure {training.name}", {**training.key, "measured_steps": steps}
    found = store.find(name, depends)
    if found is not None:
        return found
    with progress.quiet():
        try:
            measured = taken(training, steps)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{training.name}: {error}") from error
    return store.keep(name, depends, from_main(measured))


def taken(training: Training, steps: int) -> dict[str, Any]:
    """Make the trainer of a training, and take some steps."""
    settings = {name: value for name, value in training.settings.items() if name not in UNMEASURED}
    settings |= {"max_steps": steps or 1, "save_strategy": "no", "logging_strategy": "no", "eval_strategy": "no"}
    before, started = memory_in_use(), time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        experiment = parse_arguments([], **{**settings, **training.paths}, output_dir=scratch)
        make = make_pretraining if training.is_pretraining else make_adaptation
        trainer, _ = make(experiment if training.change is None else training.change(experiment))
        found = {"start": time.perf_counter() - started, "step": None, "memory": None}
        found["parameters"] = trainer.adapted_model.num_parameters()
        found["rows"] = len(trainer.train_dataset) if isinstance(trainer.train_dataset, Sized) else None
        if steps:
            watch = Watch()
            trainer.add_callback(watch)
            begun = time.perf_counter()
            trainer.train()
            ends = watch.ends
            found["step"] = (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else ends[0] - begun
            found["memory"] = max(0, watch.memory - before)
    del trainer
    gc.collect()
    return found


def minutes_of(measured: Mapping[str, Any], steps: int, rows: int, batch: int) -> float:
    """Minutes of a training with its evaluation.

    Args:
        measured: of `measure`.
        steps: of the training.
        rows: that are evaluated.
        batch: rows of a step.
    """
    evaluation = measured["step"] * FORWARD_SHARE * rows / batch
    return (measured["start"] + steps * measured["step"] + evaluation) / 60
