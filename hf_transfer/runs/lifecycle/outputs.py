"""What a saved model gives for written rows: logits, features, and the metrics of both with the labels."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, load_from_disk

from hf_transfer.core.task_loss import MULTI_LABEL
from hf_transfer.core.task_metrics import task_metrics
from hf_transfer.data.checks import column_values, label_column
from hf_transfer.data.columns import without_labels
from hf_transfer.data.labels import has_labels
from hf_transfer.evaluation.per_class import class_figures
from hf_transfer.runs.arguments import DataArguments, ModelArguments
from hf_transfer.runs.evaluate import numbered_as_model, run_evaluation
from hf_transfer.runs.models import load_model, load_processor
from hf_transfer.runs.results import Measured
from hf_transfer.runs.task import find_task
from hf_transfer.tasks import TASKS, task_named
from hf_transfer.tasks.text_classification import TEXT_COLUMNS
from hf_transfer.tasks.time_series_classification import SeriesTask
from hf_transfer.tasks.time_series_forecasting import TimeSeriesForecasting
from hf_transfer.tasks.token_classification import TokenClassification
from hf_transfer.training.trainer import TransferConfig, TransferTrainer

BATCH = 64
PARTS = (TokenClassification.name, *(name for name, task in TASKS.items() if task.labels_parts_of_images))
"""Tasks whose labels are of words, pixels, boxes or points, a number of them a row."""


@dataclass(frozen=True)
class Outputs:
    """Of N rows.

    Args:
        logits: [N, C].
        features: [N, D].
        labels: [N] or [N, C]; None where the rows have none.
        problem_type: one of `hf_transfer.core.task_loss.PROBLEM_TYPES`.
        names: of the classes.
    """

    logits: np.ndarray
    features: np.ndarray
    labels: np.ndarray | None
    problem_type: str
    names: list[str]

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric of the problem type, of the rows that have a label."""
        return {} if self.labels is None else task_metrics(self.logits, self.labels, self.problem_type)

    @property
    def per_class(self) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and rows of each class, where the rows have classes."""
        return {} if self.labels is None else class_figures(self.logits, self.labels, self.problem_type, self.names)


def measured_parts(model: str | Path, rows: Path, settings: Mapping[str, Any]) -> Measured:
    """What a model of a task in `PARTS` reaches on written rows; arguments as of `metrics_on`."""
    batch = settings.get("per_device_eval_batch_size", BATCH)
    reading = {"max_length": settings.get("max_length"), "text_columns": settings.get("text_columns") or ()}
    return run_evaluation(str(model), str(rows), task=settings["task"], batch_size=batch, **reading)


def metrics_on(model: str | Path, rows: Path, settings: Mapping[str, Any]) -> dict[str, float]:
    """What a trained model reaches on written rows with labels.

    Args:
        model: its folder.
        rows: folder that `save_to_disk` wrote.
        settings: of its training, whose task, columns and lengths count.
    """
    if settings.get("task") not in PARTS:
        return outputs_on(model, rows, settings).metrics
    return dict(measured_parts(model, rows, settings))


def outputs_on(
    model: str | Path,
    rows: Path | Dataset,
    settings: Mapping[str, Any],
    class_names: list[str] | None = None,
    revision: str | None = None,
) -> Outputs:
    """Run a model over rows.

    Args:
        model: folder or Hub id.
        rows: as `save_to_disk` wrote them, or themselves; their labels are numbered as the model's.
        settings: of the training, whose columns and lengths count.
        class_names: for a model without a head for them; its new head is random, and only the features count.
        revision: of a model on the Hub.
    """
    rows = load_from_disk(str(rows)) if isinstance(rows, str | Path) else rows
    told = settings.get("task") or (TimeSeriesForecasting.name if settings.get("forecasting") else None)
    task = told or find_task(ModelArguments(model=str(model), revision=revision), lambda: rows)
    trusts = settings.get("trust_remote_code", False)
    arguments = ModelArguments(model=str(model), task=task, trust_remote_code=trusts, revision=revision)
    is_new = class_names is not None
    problem_type = settings.get("problem_type") if is_new else None  # a stored head may be of another
    loaded = load_model(arguments, class_names, problem_type=problem_type, allow_new_weights=is_new)
    processor = load_processor(arguments, loaded.config)
    if isinstance(reader := task_named(task), SeriesTask):  # a table is not arranged before its models are known
        rows = reader.arranged(rows, DataArguments("", **reader.remembered(loaded.config)), "given")
    # rows to measure on may have further texts than those that the model was trained on
    known = () if is_new else tuple(getattr(loaded.config, TEXT_COLUMNS, None) or ())
    texts = settings.get("text_columns") or (known if set(known) <= set(rows.column_names) else ())
    reading = {"max_length": settings.get("max_length"), "text_columns": tuple(texts), "keep_labels": False}
    ready = reader.prepare(without_labels(rows), loaded.config, processor, **reading)
    collator = reader.collator(processor, ready, getattr(loaded.config, "pad_token_id", 0))
    with tempfile.TemporaryDirectory() as scratch:
        batch = settings.get("per_device_eval_batch_size", BATCH)
        use_cpu = settings.get("use_cpu", False)
        config = TransferConfig(
            scratch, per_device_eval_batch_size=batch, report_to=[], disable_tqdm=True, use_cpu=use_cpu
        )
        trainer = TransferTrainer(loaded, config, data_collator=collator)
        trainer.transfer_model.returns_features = True
        logits, features = trainer.predict(ready).predictions
    kind = settings["problem_type"]
    if kind == MULTI_LABEL and has_labels(rows):  # written by name
        rows = numbered_as_model(rows, loaded.config)
    rows = reader.in_units_of(loaded.config, rows)
    labels = column_values(rows, label_column(rows, "given")) if has_labels(rows) else None
    names = [str(loaded.config.id2label[place]) for place in range(loaded.config.num_labels)]
    return Outputs(np.asarray(logits, np.float32), np.asarray(features, np.float32), labels, kind, names)
