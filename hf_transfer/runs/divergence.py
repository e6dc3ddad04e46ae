"""Estimate how far two data sets are apart under a model, and write it down as a folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedConfig

from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.data.bundled import load
from hf_transfer.data.checks import LABEL_COLUMNS, check_not_empty, column_values
from hf_transfer.data.checks import label_column as found_label_column
from hf_transfer.data.class_names import named_label_column, numbered_as
from hf_transfer.data.columns import without_labels
from hf_transfer.data.label_columns import LabelColumn
from hf_transfer.data.labels import are_hidden, has_labels, read_labels, read_labels_as
from hf_transfer.data.prepare import check_modality, prepare
from hf_transfer.evaluation.divergences import (
    LEAST_ROWS,
    DomainRows,
    Estimate,
    bound_table,
    check_request,
    estimate_divergences,
)
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.hub import atomic_folder, check_can_write
from hf_transfer.runs.arguments import DataArguments, ModelArguments
from hf_transfer.runs.models import LacksWeights, load_model, load_processor
from hf_transfer.runs.task import find_task, remembered_texts
from hf_transfer.tasks import task_named, tasks_with_labels
from hf_transfer.training.trainer import TransferConfig, TransferTrainer

RESULTS_FILE, TABLE_FILE = "divergence.json", "divergence.md"
MEANINGS = {
    "a_distance": "proxy A-distance, 0 to 2",
    "hdh": "HdH divergence",
    "disparity": "disparity discrepancy of the model",
    "localized_disparity": "localised disparity discrepancy",
    "source_error": "source error",
    "target_error": "target error",
    "ideal_joint_error": "ideal joint error",
}


@dataclass(frozen=True)
class DivergenceReport:
    """Estimates by name, and what they were made of."""

    estimates: dict[str, Estimate]
    settings: dict[str, Any]

    def to_json(self) -> str:
        """Everything, as JSON."""
        estimates = {name: asdict(estimate) for name, estimate in self.estimates.items()}
        body = {"estimates": estimates, "bounds": bound_table(self.estimates), "settings": self.settings}
        return json.dumps(body, indent=2) + "\n"

    def to_markdown(self) -> str:
        """A table of estimates and one of bounds."""
        title = f"# {self.settings['source']} → {self.settings['target']} under {self.settings['model']}"
        lines = [title, "", self.hypothesis, "", "| estimate | value | standard error |", "|---|--:|--:|"]
        for name, estimate in self.estimates.items():
            spread = "" if estimate.standard_error is None else f"{estimate.standard_error:.3f}"
            lines.append(f"| {MEANINGS[name]} | {estimate.value:.3f} | {spread} |")
        lines += ["", "Target error ≤ source error + discrepancy + ideal joint error + what falls with the rows:", ""]
        lines += ["| bound | source error | discrepancy | ideal joint error | sum | target error |"]
        lines.append("|---|--:|--:|--:|--:|--:|")
        for row in bound_table(self.estimates):
            cells = ["unknown" if value is None else f"{value:.3f}" for value in list(row.values())[1:]]
            lines.append(f"| {row['bound']} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    @property
    def hypothesis(self) -> str:
        """What h is, in a sentence."""
        if self.settings["own_head"]:
            return "h is the model."
        if "source_error" in self.estimates:
            return "h is a head fitted on half of the source rows: the model has none for their classes."
        return "There is no h: the source has no class labels, and the model no head for classes."

    def save(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write divergence.json and divergence.md into a folder that is there whole or not at all."""
        with atomic_folder(folder, overwrite=overwrite) as staging:
            (staging / RESULTS_FILE).write_text(self.to_json(), encoding="utf-8")
            (staging / TABLE_FILE).write_text(self.to_markdown(), encoding="utf-8")


def run_divergence(
    model: str,
    source: str,
    target: str,
    *,
    source_split: str | None = None,
    target_split: str | None = None,
    task: str | None = None,
    splits: int = 5,
    slack: float = 0.05,
    max_samples: int = 1000,
    batch_size: int = 64,
    max_length: int | None = None,
    label_column: LabelColumn = None,
    text_columns: Sequence[str] = (),
    seed: int = 0,
    output_dir: Path | None = None,
    overwrite: bool = False,
) -> DivergenceReport:
    """Estimate the divergences between two data sets under a model's features.

    h is the model where it has a head for the source's classes, or else a head fitted on the source. The source error
    of the model is that on these rows: give rows that it was not trained on.

    Args:
        model: folder or Hub id.
        source: bundled name, Hub id, folder or file; with labels more can be estimated.
        target: likewise.
        source_split: which split of it.
        target_split: likewise.
        task: a task with labels, whose features are read; left out, what model and rows say.
        splits: random halves to average over.
        slack: nats that a localised hypothesis may lose on the source.
        max_samples: at most so many random rows of each data set.
        batch_size: rows at a time.
        max_length: cut text after so many tokens.
        label_column: which column holds the labels, where it has no usual name; or several of 0 and 1.
        text_columns: which one or two columns hold the text, where that leaves a doubt.
        seed: of rows, splits and first weights.
        output_dir: where to write divergence.json and divergence.md.
        overwrite: replace what is there.

    Raises:
        ValueError: not a model, no such data set, too few rows, other classes in the target, or an option out of
            range; all before a row goes through the model.
        FileExistsError: `output_dir` is in use.
    """
    require_positive(splits=splits, slack=slack)
    if max_samples < LEAST_ROWS:
        raise ValueError(f"`max_samples` should be at least {LEAST_ROWS}, got {max_samples}.")
    if task is not None and task not in tasks_with_labels():
        raise ValueError(
            "divergences are of features of a classifier: `task` should be one of "
            f"{tasks_with_labels()}, got `{task}`."
        )
    if output_dir is not None:
        check_can_write(output_dir, overwrite=overwrite)
    raw = {"source": (source, source_split), "target": (target, target_split)}
    data = {role: some_rows(load(*asked), role, max_samples, seed) for role, asked in raw.items()}
    task = task or find_task(ModelArguments(model=model), lambda: data["source"])
    check_request(len(data["source"]), len(data["target"]), splits, slack)
    data = labelled_alike(data, label_column)
    names = class_names(data["source"])
    loaded, has_head = load_with_head(ModelArguments(model=model, task=task), names, seed)
    data, has_head = numbered_as_head(data, loaded.config) if has_head else (data, False)
    texts = texts_by_role(data, model, task, DataArguments(source, text_columns=list(text_columns) or None))
    reading = {"batch_size": batch_size, "max_length": max_length}
    domains = {
        role: domain_rows(loaded, rows, has_head, task=task, model=model, text_columns=texts[role], **reading)
        for role, rows in data.items()
    }
    estimates = estimate_divergences(domains["source"], domains["target"], splits=splits, slack=slack, seed=seed)
    settings = {"model": model, "source": source, "target": target, "source_split": source_split}
    settings |= {"target_split": target_split, "splits": splits, "slack": slack, "seed": seed, "own_head": has_head}
    report = DivergenceReport(estimates, {**settings, "rows": {role: len(rows) for role, rows in data.items()}})
    if output_dir is not None:
        report.save(output_dir, overwrite=overwrite)
    return report


def some_rows(dataset: Dataset, role: str, most: int, seed: int) -> Dataset:
    """At most so many random rows."""
    check_not_empty(dataset, role)
    return dataset if len(dataset) <= most else dataset.shuffle(seed=seed).select(range(most))


def labelled_alike(data: dict[str, Dataset], column: LabelColumn) -> dict[str, Dataset]:
    """The data sets with their labels as numbers, those of the target numbered as the source's.

    Args:
        data: source and target, of which either may have no labels.
        column: their label column, where it is none of the usual ones.
    """
    present = {role: has_labels(rows, column) and not are_hidden(rows, column) for role, rows in data.items()}
    data = {role: rows if present[role] else without_labels(rows) for role, rows in data.items()}
    if not present["source"]:
        return {role: read_labels(rows, role, column)[0] if present[role] else rows for role, rows in data.items()}
    source, kind = read_labels(data["source"], "source", column)
    target = data["target"]
    if present["target"] and kind.problem_type == SINGLE_LABEL:
        target = read_labels_as(target, kind, "target", column, "the source")
    elif present["target"]:
        target, _ = read_labels(target, "target", column)
    return {"source": source, "target": target}


def texts_by_role(data: dict[str, Dataset], model: str, task: str, arguments: DataArguments) -> dict[str, list[str]]:
    """The text columns to read of source and target: those of the model's training or of the source, of both alike.

    Args:
        data: source and target, whose labels were read.
        model: folder or Hub id.
        task: whose rows these are.
        arguments: with the text columns that the user names, if any.

    Raises:
        ValueError: as `check_texts_as`.
    """
    reader = task_named(task)
    if arguments.text_columns is None:
        arguments = replace(arguments, text_columns=list(remembered_texts(model, data["source"])) or None)
    told = arguments.text_columns or []  # else the source's are looked at by what reads them
    arguments = reader.settled(arguments, data["source"])
    names = arguments.text_columns or []
    reader.arranged(data["target"], arguments, "target")
    return {"source": told, "target": names if set(names) <= set(data["target"].column_names) else []}


def class_names(dataset: Dataset) -> list[str] | None:
    """Names of the classes, where the data set has a column of named labels."""
    column = named_label_column(dataset)
    return None if column is None else list(dataset.features[column].names)


def load_with_head(arguments: ModelArguments, names: list[str] | None, seed: int) -> tuple[Any, bool]:
    """The model, and whether its head is its own and tells classes apart."""
    try:
        model = load_model(arguments, allow_new_weights=False)
    except LacksWeights:
        torch.manual_seed(seed)  # a pooling layer that the folder lacks is drawn anew
        return load_model(arguments, names), False
    return model, model.config.num_labels > 1 and model.config.problem_type in (None, "single_label_classification")


def numbered_as_head(data: dict[str, Dataset], config: PreTrainedConfig) -> tuple[dict[str, Dataset], bool]:
    """The data sets with their classes numbered as in the model's head, and whether it knows all of the source's.

    Where the model, or the source, has no names, it should have as many classes.
    """
    names, own = class_names(data["source"]), [config.id2label[index] for index in range(config.num_labels)]
    if names is None:
        has_other_labels = class_labels(data["source"]) is None and any(
            name in data["source"].column_names for name in LABEL_COLUMNS
        )
        return data, not has_other_labels and highest_class(data["source"]) < len(own)
    if own == [f"LABEL_{index}" for index in range(len(own))]:
        return data, len(names) == len(own)
    if not set(names) <= set(own):
        return data, False
    return {role: numbered_as(rows, own, role) for role, rows in data.items()}, True


def class_labels(rows: Dataset) -> torch.Tensor | None:
    """The class numbers [N]; None where there are no labels or they are no class numbers."""
    if not any(name in rows.column_names for name in LABEL_COLUMNS):
        return None
    labels = column_values(rows, found_label_column(rows, "given"))
    return torch.from_numpy(labels) if labels.ndim == 1 and labels.dtype.kind in "iu" else None


def highest_class(rows: Dataset) -> int:
    """The highest class number of the rows; -1 where they have none."""
    labels = class_labels(rows)
    return -1 if labels is None else int(labels.max())


def domain_rows(
    loaded: Any,
    rows: Dataset,
    has_head: bool,
    *,
    task: str,
    model: str,
    batch_size: int,
    max_length: int | None,
    text_columns: Sequence[str] = (),
) -> DomainRows:
    """Features, predictions and labels of the rows under the model."""
    processor = load_processor(ModelArguments(model=model, task=task), loaded.config)
    check_modality(rows, loaded.config, processor)
    ready = prepare(
        rows, loaded.config, processor, max_length=max_length, keep_labels=False, text_columns=text_columns
    )
    collator = task_named(task).collator(processor, ready, getattr(loaded.config, "pad_token_id", 0))
    with tempfile.TemporaryDirectory() as scratch:
        config = TransferConfig(scratch, per_device_eval_batch_size=batch_size, report_to=[], disable_tqdm=True)
        trainer = TransferTrainer(loaded, config, data_collator=collator)
        trainer.transfer_model.returns_features = True
        logits, features = (torch.from_numpy(values) for values in trainer.predict(ready).predictions)
    return DomainRows(features, class_labels(rows), logits.argmax(dim=1) if has_head else None)
