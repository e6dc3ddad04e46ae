"""Further label columns of a training set: checked, read as numbers, and given to every batch by the rows' numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from hf_transfer.core.label_sets import LabelSet
from hf_transfer.core.task_loss import IGNORED_LABEL, SINGLE_LABEL
from hf_transfer.data.checks import LABEL_COLUMNS, check_labels, label_numbers
from hf_transfer.data.columns import replace_column
from hf_transfer.data.holes import refuse_empty_cells
from hf_transfer.data.labels import read_labels
from hf_transfer.data.visits import VISIT_COLUMN

PREFIX = "label_set_"
"""Of the keys of a batch that hold further labels."""


def label_tables(rows: Dataset, sets: Mapping[str, LabelSet]) -> dict[str, Tensor]:
    """The labels of all rows by column: [N] whole numbers for classes, [N, C] numbers for other labels.

    Raises:
        ValueError: a column is missing or the task's own, has an empty cell, words, numbers that are not finite, or
            labels that are none of its set.
    """
    return {column: _table(rows, column, one) for column, one in sets.items()}


def _table(rows: Dataset, column: str, labels: LabelSet) -> Tensor:
    if column in LABEL_COLUMNS:
        raise ValueError(f"`columns` names `{column}`, which holds the labels of the task itself: name other columns.")
    if column not in rows.column_names:
        raise ValueError(
            f"the training dataset has no column `{column}` of further labels; it has {rows.column_names}."
        )
    values = label_numbers(rows, column, "training")
    where = f"column `{column}` of the training dataset"
    if labels.problem_type == SINGLE_LABEL:
        return torch.from_numpy(_classes(values, labels.outputs, where))
    if values.size != len(values) * labels.outputs:
        raise ValueError(
            f"{where} should hold {labels.outputs} numbers a row ({labels.problem_type}), got the shape "
            f"{list(values.shape)}: say in `columns` how many there are."
        )
    check_labels(rows, column, labels.problem_type, labels.outputs, "training")
    return torch.from_numpy(values.reshape(len(values), -1).astype(np.float32))


def _classes(values: np.ndarray, classes: int, where: str) -> np.ndarray:
    if values.ndim != 1 or values.dtype.kind not in "iub":
        raise ValueError(
            f"{where} should hold one whole class number a row, got {values.dtype} of shape {list(values.shape)}: "
            "for numbers to predict say `regression` in `columns`."
        )
    values = values.astype(np.int64)
    outside = np.unique(values[(values != IGNORED_LABEL) & ((values < 0) | (values >= classes))])
    if len(outside):
        raise ValueError(
            f"{where} holds labels outside 0..{classes - 1}: {outside[:10].tolist()}. Say in `columns` how many "
            f"classes there are, or number them from 0 on; {IGNORED_LABEL} means no label."
        )
    return values


def with_class_numbers(rows: Dataset, sets: Mapping[str, LabelSet]) -> Dataset:
    """The training rows, whose classes in these columns are numbers where they were words or other classes.

    Raises:
        ValueError: as `label_tables`.
    """
    for column, one in sets.items():
        if column in rows.column_names and column not in LABEL_COLUMNS and one.problem_type == SINGLE_LABEL:
            refuse_empty_cells(rows, [column], "training")  # by the name that the user knows
            read, _ = read_labels(rows, "training", column, SINGLE_LABEL)
            rows = replace_column(rows, column, np.asarray(read.with_format(None)["labels"]))
    label_tables(rows, sets)
    return rows


def without_known_labels(rows: Dataset, sets: Mapping[str, LabelSet], like: Dataset) -> Dataset:
    """The rows of a target, of which no further label is read: columns of the type that other rows have."""
    for column, one in sets.items():
        is_list = isinstance(like.with_format(None)[0][column], list)
        rows = replace_column(
            rows, column, [[float(IGNORED_LABEL)] * one.outputs if is_list else IGNORED_LABEL] * len(rows)
        )
    return rows


@dataclass(frozen=True)
class LabelSetCollator:
    """Adds further labels under keys that start with `label_set_` to what another collator gives.

    They are found by the number of the row that comes with its visit: no other part of the data has to know them.

    Args:
        collator: makes a batch of rows.
        tables: labels of the whole training set by column, as `label_tables` gives them.
    """

    collator: Callable[[Sequence[Any]], Mapping[str, Any]]
    tables: Mapping[str, Tensor]
    reads_visits: ClassVar[bool] = True

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        numbers = torch.tensor([row[VISIT_COLUMN].row for row in rows])
        if not getattr(self.collator, "reads_visits", False):
            rows = [{name: value for name, value in row.items() if name != VISIT_COLUMN} for row in rows]
        return {**self.collator(rows), **{f"{PREFIX}{name}": table[numbers] for name, table in self.tables.items()}}


def split_label_sets(batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the model reads of a batch, and its further labels by column."""
    sets = {name.removeprefix(PREFIX): value for name, value in batch.items() if name.startswith(PREFIX)}
    return {name: value for name, value in batch.items() if not name.startswith(PREFIX)}, sets
