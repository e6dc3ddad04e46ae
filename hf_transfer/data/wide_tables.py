"""Tables with a column of numbers for every step of a series, as UCR's files and spreadsheets have them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset, List, Value
from transformers.utils import logging

from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.columns import format_of
from hf_transfer.data.holes import column_of, refuse_empty_cells
from hf_transfer.data.label_columns import LabelColumn, label_names

logger = logging.get_logger(__name__)

PAST = "past_values"
JOINED = "_columns_of_the_series"
"""Column of joined rows that names the columns they had."""
NUMBERS = ("int", "uint", "float")


def with_joined_series(rows: Dataset, columns: Sequence[str] | None, label_column: LabelColumn, role: str) -> Dataset:
    """Rows whose columns of numbers are one series of one channel, `past_values` [T, 1]; rows that have one are kept.

    Args:
        rows: a table.
        columns: of the steps, in their order; None for all columns of numbers but those of labels, in the table's.
        label_column: of the labels, where they have none of the usual names.
        role: what the rows are for, for messages.

    Raises:
        ValueError: no such column, one of no numbers, fewer than two, or an empty cell.
    """
    if PAST in rows.column_names and (columns is None or not set(columns) <= set(rows.column_names)):
        return rows
    names = number_columns(rows, label_column) if columns is None else list(columns)
    missing = [name for name in names if name not in rows.column_names]
    if missing or len(names) < 2:
        lacks = f"lacks the columns {missing}" if missing else f"has no column `{PAST}` and no columns of numbers"
        raise ValueError(
            f"the {role} dataset {lacks}, and has {rows.column_names}: a series is a list of numbers in a column "
            f"`{PAST}`, or a column of numbers for every step, which `series_columns` names."
        )
    for name in names:
        if not holds_numbers(rows.features[name]):
            raise ValueError(f"column `{name}` of the {role} dataset holds {rows.features[name]}, not numbers.")
    refuse_empty_cells(rows, names, role)
    if columns is None:
        logger.warning(f"reading the {len(names)} columns of numbers, `{names[0]}` to `{names[-1]}`, as one series.")
    values = np.stack([column_of(rows, name).to_numpy().astype(np.float32) for name in names], 1)
    made = rows.with_format(None).add_column(PAST, values[..., None].tolist(), feature=List(List(Value("float32"))))
    made = made.add_column(JOINED, [json.dumps(names)] * len(rows), feature=Value("string"))
    others = [name for name in rows.column_names if name not in names]
    return made.select_columns([PAST, JOINED, *others]).with_format(**format_of(rows))


def number_columns(rows: Dataset, label_column: LabelColumn = None) -> list[str]:
    """The columns of numbers that are no labels, in the order of the table."""
    labels = {*LABEL_COLUMNS, "domain", *label_names(label_column)}
    return [name for name, feature in rows.features.items() if name not in labels and holds_numbers(feature)]


def holds_numbers(feature: Any) -> bool:
    """Whether a column of this feature has a number in every row, and not that of a class."""
    return isinstance(feature, Value) and feature.dtype.startswith(NUMBERS)


def with_series_to_rank(rows: Dataset, columns: Sequence[str] | None, label_column: LabelColumn = None) -> Dataset:
    """Rows for models of any kind: a table that holds nothing but two or more numbers beside labels as series.

    Args:
        rows: a table, or other rows, which are kept.
        columns: of the steps, where they are named.
        label_column: of the labels, where they have none of the usual names.
    """
    labels = {*LABEL_COLUMNS, *label_names(label_column)}
    others = [name for name in rows.column_names if name not in labels]
    if columns is None and (len(others) < 2 or number_columns(rows, label_column) != others):
        return rows
    return without_names(with_joined_series(rows, columns, label_column, "ranking"))


def without_names(rows: Dataset) -> Dataset:
    """Rows without the column that names what their series were joined of."""
    return rows.remove_columns(JOINED) if JOINED in rows.column_names else rows


def joined_columns(rows: Dataset) -> list[str] | None:
    """The columns that the series of rows were joined of; None of other rows."""
    return json.loads(rows[0][JOINED]) if JOINED in rows.column_names else None
