"""Several columns that are labels, as one column of lists: `toxic`, `insult` of 0 and 1, or `width`, `height`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, List, Value

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.data.columns import format_of
from hf_transfer.data.holes import column_of

LabelColumn = str | Sequence[str] | None
"""The name of a label column, those of several that are labels together, or None for a usual name."""


def label_names(column: LabelColumn) -> list[str]:
    """The columns that are named; none for a usual name."""
    return [column] if isinstance(column, str) else list(column or ())


def with_joined_columns(dataset: Dataset, role: str, columns: Sequence[str]) -> Dataset:
    """The rows with these columns as one, `labels`: of 0 and 1 (or False and True) the places in `columns` of those
    that hold, with the names of the columns; of other numbers all of them. A row with an empty cell has no list.

    Args:
        dataset: rows.
        role: what they are for, for messages.
        columns: names of two or more columns; a single one is renamed.

    Raises:
        ValueError: no such column, or a column of no numbers.
    """
    missing = [name for name in columns if name not in dataset.column_names]
    if missing or not columns or len(set(columns)) < len(columns):
        told = f"it has no {missing}" if missing else f"got {list(columns)}"
        raise ValueError(
            f"`label_column` should name columns of the {role} dataset, each once: {told}; its columns are "
            f"{dataset.column_names}."
        )
    others = [name for name in ("labels", *columns) if name in dataset.column_names]
    if len(columns) == 1:
        kept = [name for name in others if name != columns[0]]
        return dataset.remove_columns(kept).rename_columns({columns[0]: "labels"} if columns[0] != "labels" else {})
    values = np.stack([_numbers(dataset, name, role) for name in columns], 1)
    is_empty = np.isnan(values).any(1)
    are_hot = np.isin(values[~is_empty], (0, 1)).all()
    if not are_hot and np.isin(values[~is_empty], (0, 1, IGNORED_LABEL)).all():
        raise ValueError(
            f"the label columns {list(columns)} of the {role} dataset hold 0, 1 and {IGNORED_LABEL}: give 0 or 1 in "
            "every cell, or leave the rows out."
        )
    lists = ((np.flatnonzero(row) if are_hot else row).tolist() for row in values)
    rows = [None if empty else row for row, empty in zip(lists, is_empty)]
    feature = List(ClassLabel(names=list(columns)) if are_hot else Value("float64"))
    kept = dataset.with_format(None).remove_columns(others)
    return kept.add_column("labels", rows, feature=feature).with_format(**format_of(dataset))


def _numbers(dataset: Dataset, name: str, role: str) -> np.ndarray:
    """The column [N], NaN for an empty cell."""
    values = column_of(dataset, name)
    kind = values.type
    if not any(of(kind) for of in (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_null)):
        raise ValueError(
            f"column `{name}` of the {role} dataset holds values of type {dataset.features[name]}: several label "
            "columns hold 0 and 1 (or False and True) each, or numbers to predict. A column of classes is named alone."
        )
    return np.asarray(values.to_pylist(), dtype=np.float64)
