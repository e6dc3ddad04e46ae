"""One training of a lifecycle: `run_adaptation` on the written rows, done once for the same dependencies.

A kill loses what came after the newest checkpoint. The record of a training has its metrics on the rows it was
measured on, what it is chosen by, its curve and its cost. Its checkpoints are removed, of a trial the whole folder.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from hf_transfer.core.task_metrics import METRICS
from hf_transfer.evaluation.detection import DETECTION_METRICS
from hf_transfer.evaluation.keypoints import KEYPOINT_METRICS
from hf_transfer.evaluation.segmentation import SEGMENTATION_METRICS
from hf_transfer.runs.adapt import run_adaptation, run_pretraining
from hf_transfer.runs.arguments import Experiment, parse_arguments
from hf_transfer.runs.card import LOG_FILE
from hf_transfer.runs.domain_report import NOT_COMPARED
from hf_transfer.runs.lifecycle.outputs import metrics_on
from hf_transfer.runs.lifecycle.progress import Progress
from hf_transfer.runs.lifecycle.store import Store
from hf_transfer.runs.saving import read_results
from hf_transfer.runs.single_run import MODEL_FOLDER, checkpoints

OF_PARTS = ("entity_f1", SEGMENTATION_METRICS[0], DETECTION_METRICS[0], KEYPOINT_METRICS[0])
"""The usual metrics of tasks whose labels are of parts of rows."""
LOWER_IS_BETTER = frozenset({"mean_squared_error", "mean_absolute_error", "loss"})
BATCH, EPOCHS = 16, 3
LEAST_STEPS = 100
# Learning rates, schedule and weight decay of recipes/task_adaptation/base/bible_scarce.yaml, which fine-tunes MiniLM.
DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": BATCH,
    "per_device_eval_batch_size": 64,
    "learning_rate": 1e-4,
    "head_learning_rate_multiplier": 10.0,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.01,
    "logging_steps": 0.05,
    "save_strategy": "steps",
    "save_steps": 0.2,
    "save_total_limit": 2,
    "report_to": [],
    "diagnostics": False,
}
"""Of every training, where the plan says nothing: shares of the steps where a number of steps is below 1."""


@dataclass(frozen=True)
class Training:
    """What one training depends on.

    Args:
        name: for the progress and the report, such as "task: lora from bert, seed 0".
        settings: all arguments of `hf-transfer adapt` but the folders.
        depends: what else the result depends on: fingerprints of the rows, revisions of the models.
        chosen_by: name of the validator; None for the usual metric on the validation rows.
        is_trial: of a search: its model is not kept.
        paths: arguments that are folders of the lifecycle itself, which `depends` stands for.
        change: of the experiment that the arguments make.
        is_pretraining: of a candidate, as `hf-transfer pretrain`; nothing is chosen by it.
    """

    name: str
    settings: Mapping[str, Any]
    depends: Mapping[str, Any]
    chosen_by: str | None
    is_trial: bool
    paths: Mapping[str, Any]
    change: Callable[[Experiment], Experiment] | None = None
    is_pretraining: bool = False

    @property
    def key(self) -> dict[str, Any]:
        """Everything that the result depends on."""
        processes = PartialState().num_processes
        return {"settings": dict(self.settings), **self.depends, "trial": self.is_trial, "processes": processes}


def train(training: Training, store: Store, progress: Progress, validation: Path | None) -> dict[str, Any]:
    """The record of a training: done now, gone on with, or found.

    Args:
        training: what to train.
        store: of finished pieces.
        progress: told of what is done.
        validation: folder of the rows to choose by; None for no choice.

    Raises:
        ValueError: unusable arguments; before the training.
    """
    folder = store.folder(training.name, training.key)
    found = store.find(training.name, training.key)
    if found is not None:
        progress.found(training.name)
    else:
        with progress.doing(training.name, store.changes(training.name, training.key)):
            try:
                record = recorded(training, folder, trained(training, folder), validation)
            except FloatingPointError as error:
                if not training.is_trial:
                    raise
                record = {"name": training.name, "score": None, "reason": str(error), "settings": training.settings}
        found = store.keep(training.name, training.key, record)
    clear(folder, training.is_trial)  # also what a kill between both left
    return found


def trained(training: Training, folder: Path) -> dict[str, Any]:
    """The results of the trained model; it is trained, or was when the program was killed before it could say so."""
    results = read_results(folder / MODEL_FOLDER)
    PartialState().wait_for_everyone()
    if results is None:
        arguments = {**training.settings, **training.paths}
        experiment = parse_arguments([], **arguments, output_dir=str(folder), resume=True)
        run = run_pretraining if training.is_pretraining else run_adaptation
        run(experiment if training.change is None else training.change(experiment))
        results = read_results(folder / MODEL_FOLDER)
    return results


def recorded(training: Training, folder: Path, results: Mapping[str, Any], validation: Path | None) -> dict[str, Any]:
    """What is kept of a training."""
    model = folder / MODEL_FOLDER
    told = json.loads((model / LOG_FILE).read_text())
    log = told["log_history"]
    measured = {name: value for name, value in results.items() if isinstance(value, int | float)}
    record: dict[str, Any] = {
        "name": training.name,
        "model": str(model),
        "test": measured,
        "guard": results.get("guard"),
        # source only stands in the plan's own table, whatever a single run would say
        "warnings": [warning for warning in results.get("warnings", []) if warning != NOT_COMPARED],
    }
    losses = [[one["step"], one["loss"]] for one in log if "loss" in one]
    seconds = next((one["train_runtime"] for one in log if "train_runtime" in one), None)
    record |= {name: results[name] for name in ("base_model", "base_model_revision") if name in results}
    record |= {"losses": losses, "seconds": seconds, "settings": dict(training.settings)}
    record["parameters"] = int(told["hyper_parameters"]["trained_parameters"].split()[0])
    if training.is_pretraining:
        return record
    if training.chosen_by is not None:
        record["validation"] = results["validators"]
        record["chosen_by"] = training.chosen_by or results["guard"]["validator"]
    elif validation is None:
        return {**record, "validation": {}, "chosen_by": None, "score": None}
    else:
        if training.is_trial:
            record["validation"] = measured
        else:
            record["validation"] = metrics_on(model, validation, training.settings)
        record["chosen_by"] = usual_metric(record["validation"])
    if training.is_trial:
        record["test"] = {}
    value = record["validation"][record["chosen_by"]]
    record["score"] = -value if record["chosen_by"] in LOWER_IS_BETTER else value
    return record


def usual_metric(metrics: Mapping[str, float]) -> str:
    """The first metric of the problem type that was measured.

    Raises:
        ValueError: none was.
    """
    for name in (*OF_PARTS, *(names[0] for names in METRICS.values())):
        if name in metrics:
            return name
    raise ValueError(f"nothing to choose by was measured, only {sorted(metrics)}.")


def clear(folder: Path, everything: bool) -> None:
    """Remove the checkpoints of a finished training, or the whole folder of a trial."""
    if PartialState().is_main_process:
        for one in [folder] if everything else checkpoints(folder):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(one)
    PartialState().wait_for_everyone()


def steps_of(arguments: Mapping[str, Any], rows: int) -> int:
    """How many steps a training has: as it says, or those of its epochs, or 3 epochs and at least 100 steps.

    Args:
        arguments: of the training.
        rows: that it trains on.
    """
    if (given := arguments.get("max_steps", -1)) > 0:
        return given
    batch = arguments["per_device_train_batch_size"] * arguments.get("gradient_accumulation_steps", 1)
    a_pass = -(-rows // (batch * PartialState().num_processes))
    if "num_train_epochs" in arguments:
        return max(1, round(a_pass * arguments["num_train_epochs"]))
    return max(LEAST_STEPS, EPOCHS * a_pass)
