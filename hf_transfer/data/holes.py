"""Empty cells, found and named before anything is made of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

NAMED_ROWS = 5


def row_name(dataset: Dataset, index: int, column: str | None = None) -> str:
    """What a message calls a row: its number in the file or data set it was read from, the first being 0.

    Args:
        dataset: rows, possibly drawn from more.
        index: of the row among them.
        column: of the cell that the message is about.
    """
    drawn = getattr(dataset, "_indices", None)
    number = index if drawn is None else drawn.column(0)[index].as_py()
    return f"row {number}" if column is None else f"row {number} of column `{column}`"


def column_of(dataset: Dataset, column: str) -> pa.ChunkedArray:
    """One column as it is stored, whatever the dataset's format; pictures are not opened."""
    return dataset.with_format("arrow", columns=[column])[:][column]


def empty_cells(values: pa.ChunkedArray) -> np.ndarray:
    """Places [n] of the cells that are empty, not a number, or lists with such an item."""
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return np.array([index for index, row in enumerate(values.to_pylist()) if _has_hole(row)], dtype=int)
    return np.flatnonzero(pc.is_null(values, nan_is_null=True).to_numpy(zero_copy_only=False))


def _has_hole(value: object) -> bool:
    if isinstance(value, list):
        return any(_has_hole(one) for one in value)
    return value is None or value != value  # nothing but NaN differs from itself


def refuse_empty_cells(dataset: Dataset, columns: Sequence[str], role: str) -> None:
    """Raises ValueError when a cell of these columns is empty; the column and the first rows are named.

    Args:
        dataset: rows.
        columns: which to look at.
        role: what the data set is for, for the message.
    """
    for column in columns:
        indices = empty_cells(column_of(dataset, column))
        if len(indices):
            refuse_rows(dataset, column, indices, role, "is empty")


def refuse_rows(dataset: Dataset, column: str, indices: np.ndarray, role: str, complaint: str) -> None:
    """Raises the ValueError that says what is wrong with these rows of a column, and what to do."""
    rows = ", ".join(row_name(dataset, int(index)).removeprefix("row ") for index in indices[:NAMED_ROWS])
    more = f" and {len(indices) - NAMED_ROWS} more" if len(indices) > NAMED_ROWS else ""
    raise ValueError(
        f"column `{column}` of the {role} dataset {complaint} in row {rows}{more} (the first row is 0): fill these "
        "cells, or leave the rows out."
    )
