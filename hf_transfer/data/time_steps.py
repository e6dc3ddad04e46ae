"""Times of the rows of a table: dates, moments or numbers, which have to go on in even steps.

Steps are even where they all last as long, or are as many months each on the same day of the month (or on the last).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from hf_transfer.data.holes import column_of, refuse_empty_cells, refuse_rows, row_name

TOLERANCE = 1e-6
"""Share of a step by which numbers may be uneven."""
READINGS: tuple[Callable[[pd.Series], pd.Series], ...] = (
    lambda cells: pd.to_datetime(cells, errors="coerce", utc=True),
    lambda cells: pd.to_datetime(cells, errors="coerce", utc=True, dayfirst=True),
    lambda cells: pd.to_datetime(cells, errors="coerce", utc=True, format="mixed"),
)
"""How text may be read as times: of the form of the first cell, with the day before the month, or of several forms."""


def check_even_steps(rows: Dataset, column: str, series: Sequence[Sequence[int]], role: str) -> None:
    """Raises ValueError where a time is missing, is none, goes back, or comes after an uneven step.

    Args:
        rows: steps.
        column: of times.
        series: the places of the rows of every series.
        role: of the rows, for messages.
    """
    refuse_empty_cells(rows, [column], role)
    readings = times_of(rows, column, role)
    problems = [next(filter(None, (uneven(times, theirs) for theirs in series)), None) for times in readings]
    if None not in problems:
        place, complaint = problems[0]
        raise ValueError(f"{row_name(rows, place, column)} of the {role} dataset {complaint}")


def times_of(rows: Dataset, column: str, role: str) -> list[Any]:
    """The times of all rows, [N] numbers or moments, in every way in which they can be read.

    Raises:
        ValueError: some cells are no times.
    """
    cells = pd.Series(column_of(rows, column).to_pylist())
    if pd.api.types.is_numeric_dtype(cells):
        return [cells.to_numpy(dtype=np.float64)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a reading that is tried beside others
        read = [reading(cells) for reading in READINGS]
    whole = [pd.DatetimeIndex(times) for times in read if not times.isna().any()]
    if not whole:
        bad = np.flatnonzero(read[-1].isna())
        refuse_rows(rows, column, bad, role, f"holds {cells[bad[0]]!r}, which is no time,")
    return whole


def uneven(times: Any, places: Sequence[int]) -> tuple[int, str] | None:
    """The place of the first row of a series whose step is not as the others, and what is wrong; None for even ones.

    Args:
        times: of all rows.
        places: of the rows of the series.
    """
    theirs = times[list(places)]
    steps = theirs[1:] - theirs[:-1]
    if not len(steps):
        return None
    zero = 0.0 if isinstance(theirs, np.ndarray) else pd.Timedelta(0)
    back = np.flatnonzero(steps <= zero)
    if len(back):
        return places[back[0] + 1], (
            "is no later than the row before: sort the rows by time; where several series share the table, name the "
            "column that tells them apart by `forecasting: {id_column: NAME}`."
        )
    usual = pd.Series(steps).mode()[0]
    if isinstance(theirs, np.ndarray):
        odd = np.flatnonzero(np.abs(steps - usual) > TOLERANCE * usual)
    else:
        odd = np.array([], dtype=int) if in_months(theirs) else np.flatnonzero(steps != usual)
    if not len(odd):
        return None
    return places[odd[0] + 1], (
        f"comes {steps[odd[0]]} after the row before, and most rows {usual} after it: fill in the missing steps, or "
        "read the rows as even steps all the same by `forecasting: {time_column: false}`."
    )


def in_months(times: pd.DatetimeIndex) -> bool:
    """Whether moments are as many months apart each, on one day of the month or on the last one."""
    numbers = np.asarray(times.year * 12 + times.month)
    same_day = len(set(times.day)) == 1 or bool(np.all(times.is_month_end))
    return len(set(np.diff(numbers))) == 1 and same_day and len(set(times.time)) == 1
