"""Checks of a dataset before any training; each failure says what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset
from transformers import TrainingArguments
from transformers.utils import logging

from hf_transfer.core.objective import IGNORED_LABEL, SOURCE, TARGET, Objective
from hf_transfer.core.task_loss import MULTI_LABEL, SINGLE_LABEL
from hf_transfer.data.holes import refuse_empty_cells

logger = logging.get_logger(__name__)

LABEL_COLUMNS = ("labels", "label", "label_ids")
"""The names under which a Hugging Face collator accepts labels."""


def column_values(dataset: Dataset, column: str) -> np.ndarray:
    """One column as an array, whatever the dataset's format, without touching the other columns."""
    return np.asarray(dataset.with_format("numpy", columns=[column])[:][column])


def check_not_empty(dataset: Dataset, name: str) -> None:
    """Raises ValueError when the dataset has no rows."""
    if len(dataset) == 0:
        raise ValueError(f"the {name} dataset is empty: check the split name and any filter applied before.")


def label_column(dataset: Dataset, name: str) -> str:
    """The name of the label column.

    Raises:
        ValueError: there is none.
    """
    for column in LABEL_COLUMNS:
        if column in dataset.column_names:
            return column
    raise ValueError(
        f"the {name} dataset has no label column: expected one of {list(LABEL_COLUMNS)}, found "
        f"{dataset.column_names}. "
        "Name yours by `--label_column` (`data.label_column` in a plan), or rename it: "
        'dataset.rename_column("your_column", "labels").'
    )


def label_numbers(dataset: Dataset, column: str, name: str) -> np.ndarray:
    """The labels, [N] or [N, C], as numbers.

    Raises:
        ValueError: one is missing, they are words, or rows have different numbers of them.
    """
    refuse_empty_cells(dataset, [column], name)
    values = column_values(dataset, column)
    if values.dtype.kind == "O" and len(values) and isinstance(values[0], np.ndarray):
        raise ValueError(f"column `{column}` of the {name} dataset: every row should hold as many labels.")
    if values.dtype.kind not in "iubf":
        raise ValueError(
            f"column `{column}` of the {name} dataset should hold class numbers, got {values.dtype}: "
            f'use dataset.class_encode_column("{column}").'
        )
    return values


def check_unit_labels(dataset: Dataset, column: str, num_labels: int, name: str) -> None:
    """Every row lists the classes of its tokens, each in [0, num_labels) or `IGNORED_LABEL`.

    Raises:
        ValueError: a row that lists none, or a class outside the model's, with its row.
    """
    for row, labels in enumerate(dataset.with_format(None)[column]):
        if not isinstance(labels, list):
            raise ValueError(
                f"column `{column}` of the {name} dataset, row {row}: expected a list with a class for every token, "
                f"got {labels!r}."
            )
        outside = [label for label in labels if label != IGNORED_LABEL and not 0 <= label < num_labels]
        if outside:
            raise ValueError(
                f"column `{column}` of the {name} dataset, row {row}: labels outside 0..{num_labels - 1}: "
                f"{outside[:10]}. Load the model with as many labels as there are classes."
            )


def check_labels(dataset: Dataset, column: str, problem_type: str, num_labels: int, name: str) -> None:
    """The values of a label column are possible ones of the problem type.

    A number to predict that is exactly `IGNORED_LABEL` means a row without a label; where that is not the target of a
    domain adaptation, it is told.

    Raises:
        ValueError: a class outside the model's, a label that does not lie in [0, 1] where several hold at once, a
            number that is not finite, or a row some of whose labels are unknown.
    """
    if problem_type == SINGLE_LABEL:
        check_class_labels(dataset, column, num_labels, name)
        return
    values = column_values(dataset, column)
    values = values.reshape(len(values), -1)
    unknown = values == IGNORED_LABEL
    where = f"column `{column}` of the {name} dataset"
    _refuse_rows(unknown.any(axis=1) & ~unknown.all(axis=1), f"{where} holds labels of which some are {IGNORED_LABEL}")
    if problem_type == MULTI_LABEL:
        outside = ~unknown & ~((values >= 0) & (values <= 1))
        _refuse_rows(outside.any(axis=1), f"{where} holds labels outside 0..1 ({problem_type})")
        return
    _refuse_rows(~np.isfinite(values.astype(float)).all(axis=1), f"{where} holds numbers that are not finite")
    if "domain" in dataset.column_names:
        unknown = unknown[column_values(dataset, "domain") != TARGET]
    if unknown.any():
        logger.warning(
            f"{where}: {int(unknown.all(axis=1).sum())} of {len(values)} rows have the number {IGNORED_LABEL}, which "
            "means no label: nothing is learned from them. If it is a value, shift or scale the numbers."
        )


def _refuse_rows(wrong: np.ndarray, complaint: str) -> None:
    if wrong.any():
        rows = np.flatnonzero(wrong)
        raise ValueError(f"{complaint}: {len(rows)} rows, the first is row {rows[0]}. Mend them or leave them out.")


def check_class_labels(dataset: Dataset, column: str, num_labels: int, name: str) -> None:
    """Every class label is in [0, num_labels) or `IGNORED_LABEL`.

    Raises:
        ValueError: labels that are not integers, or a label outside the classes.
    """
    values = column_values(dataset, column)
    if values.dtype.kind not in "iub":
        raise ValueError(
            f"column `{column}` of the {name} dataset should hold class numbers, got {values.dtype}: "
            f'use dataset.class_encode_column("{column}").'
        )
    outside = np.unique(values[(values != IGNORED_LABEL) & ((values < 0) | (values >= num_labels))])
    if len(outside):
        raise ValueError(
            f"column `{column}` of the {name} dataset holds labels outside 0..{num_labels - 1}: "
            f"{outside[:10].tolist()}. The "
            f"model has num_labels={num_labels}: load it with num_labels={int(values.max()) + 1}, or renumber the "
            "labels."
        )


def check_two_domains(domains: Sequence[int] | np.ndarray) -> None:
    """Both the source (0) and the target (1) are present, and nothing else.

    Raises:
        ValueError: one domain is missing, or there is another value.
    """
    present = np.unique(np.asarray(domains)).tolist()
    if present != [SOURCE, TARGET]:
        raise ValueError(
            f"the `domain` column should hold both 0 (source) and 1 (target), got only {present}: concatenate both "
            "datasets, "
            "or pass the target as `target_dataset`."
        )


def check_rows_of_domains(objectives: Mapping[str, Objective], dataset: Dataset, args: TrainingArguments) -> None:
    """A batch has as many rows of each domain as its statistics need: one row has no covariance.

    Args:
        objectives: by name.
        dataset: the training rows; without a `domain` column nothing is checked.
        args: batch size and number of processes.

    Raises:
        ValueError: an objective would never have anything to compare.
    """
    if "domain" not in dataset.column_names or args.train_sampling_strategy != "random":
        return
    domains = len(np.unique(column_values(dataset, "domain")))
    for name, objective in objectives.items():
        processes = args.world_size if "global_batch" in objective.needs else 1
        if args.train_batch_size // domains * processes < objective.rows_per_domain:
            least = domains * -(-objective.rows_per_domain // processes)
            raise ValueError(
                f"objective `{name}` needs at least {objective.rows_per_domain} rows of each of the {domains} domains "
                f"in a batch, and a batch of {args.train_batch_size * processes} has fewer: it would be 0 throughout. "
                f"Set per_device_train_batch_size to at least {least}."
            )


def check_domain_sizes(domains: np.ndarray, share: int) -> None:
    """Each domain has as many rows as a batch takes of it, so that no batch holds a row twice.

    Args:
        domains: [N], 0 = source, 1 = target.
        share: rows of each domain in a batch of all processes.

    Raises:
        ValueError: one has fewer.
    """
    for domain, name in ((SOURCE, "source"), (TARGET, "target")):
        rows = int((domains == domain).sum())
        if rows < share:
            raise ValueError(
                f"the {name} has {rows} rows and each batch takes {share} of it, half of its rows: lower "
                f"`per_device_train_batch_size` so that all processes together take at most {2 * rows}."
            )


def check_environments(dataset: Dataset) -> None:
    """A `domain` column tells at least two environments apart.

    Raises:
        ValueError: no such column, or only one environment.
    """
    if "domain" not in dataset.column_names:
        raise ValueError(
            "these objectives compare environments and the training dataset has no `domain` column to number them; "
            f"it has {dataset.column_names}."
        )
    present = np.unique(column_values(dataset, "domain"))
    if len(present) < 2:
        raise ValueError(f"the `domain` column should number at least two environments, got only {present.tolist()}.")
