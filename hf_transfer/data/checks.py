"""Checks of a dataset before any training; each failure says what to do next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from hf_transfer.objective import IGNORED_LABEL, SOURCE, TARGET

LABEL_COLUMNS = ("labels", "label", "label_ids")
"""The names under which a Hugging Face collator accepts labels."""


def column_values(dataset: Dataset, column: str) -> np.ndarray:
    """One column as an array, whatever the dataset's format, without touching the other columns."""
    return np.asarray(dataset.with_format("numpy").select_columns([column])[:][column])


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
        'Rename yours: dataset.rename_column("your_column", "labels").'
    )


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
