"""Tables whose rows are steps in the order of time: one long series, or several that a column tells apart.

A channel is a column of numbers. A column of times, where there is one, has to go on in even steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from transformers.utils import logging

from hf_transfer.data.class_names import WORDS
from hf_transfer.data.holes import column_of, refuse_empty_cells, refuse_rows
from hf_transfer.data.time_steps import check_even_steps

logger = logging.get_logger(__name__)

ID_COLUMNS = ("unique_id", "item_id", "series_id", "series", "id")
TIME_COLUMNS = ("time", "date", "datetime", "timestamp", "ds")
"""Usual names, in any case; the first one there counts."""
NUMBERS = ("int", "uint", "float", "double")
TIMES = ("timestamp", "date")
UNNAMED = re.compile(r"Unnamed: \d+|__index_level_\d+__")
"""What a column is called that pandas wrote as the index of a frame."""
COMMA = re.compile(r"[+-]?(\d+|\d{1,3}([. ']\d{3})+)(,\d+)?|[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
"""A number with a comma before its decimals, or between its thousands."""
MOSTLY = 0.5
"""A column of text of which more than this share are numbers is a column of numbers with mistakes in it."""


@dataclass(frozen=True)
class Series:
    """The steps of one series.

    Args:
        name: in the id column; None where there is no such column.
        values: [T, C] float32.
    """

    name: str | None
    values: np.ndarray


def series_of(rows: Dataset, settings: Mapping[str, Any], role: str) -> tuple[list[Series], list[str]]:
    """The series of a table in the order in which they begin, and the names of their channels.

    Args:
        rows: steps.
        settings: `columns`, `id_column` and `time_column`; None, or left out, for what the names and contents say. A
            `time_column` of False is none.
        role: of the rows, for messages.

    Raises:
        ValueError: no channel or no such column, a cell that is empty or no finite number, or steps that are uneven.
    """
    ids = id_column_of(rows, settings.get("id_column"))
    times = time_column_of(rows, settings.get("time_column"))
    channels = channels_of(rows, settings.get("columns"), [name for name in (ids, times) if name], role)
    refuse_empty_cells(rows, [*channels, *([ids] if ids else [])], role)
    values = np.stack([np.asarray(rows.with_format(None)[name][:], dtype=np.float32) for name in channels], axis=1)
    for place, name in enumerate(channels):
        bad = np.flatnonzero(~np.isfinite(values[:, place]))
        if len(bad):
            refuse_rows(rows, name, bad, role, "holds no finite number")
    names = [None] * len(rows) if ids is None else [str(one) for one in column_of(rows, ids).to_pylist()]
    places: dict[str | None, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    if times is not None:
        check_even_steps(rows, times, list(places.values()), role)
    told = {"channels": channels, "id_column": ids, "time_column": times}
    logger.warning_once(f"reading the {role} table by {told}.")
    return [Series(name, values[theirs]) for name, theirs in places.items()], channels


def channels_of(rows: Dataset, named: Sequence[str] | None, others: Sequence[str], role: str) -> list[str]:
    """The columns of numbers, one for each channel.

    Args:
        rows: steps.
        named: by the user, if at all.
        others: columns that are none.
        role: for messages.

    Raises:
        ValueError: none, one that was named and holds no numbers, or one that holds text among its numbers, or numbers
            with a comma.
    """
    kinds = {name: str(getattr(feature, "dtype", "")) for name, feature in rows.features.items()}
    found = [name for name, kind in kinds.items() if kind.startswith(NUMBERS) and name not in others]
    for name in [one for one in named or kinds if kinds.get(one) in WORDS and one not in others]:
        refuse_text_among_numbers(rows, name, role)
    if named is None:
        for name in [one for one in found if UNNAMED.fullmatch(one)]:
            found.remove(name)
            logger.warning_once(f"column `{name}` is the index of a frame and is not read.")
    missing = [name for name in named or () if name not in found]
    if missing or not found:
        raise ValueError(f"`forecasting`: {missing or 'no columns'} hold numbers, which {found} of {list(kinds)} do.")
    return list(named or found)


def refuse_text_among_numbers(rows: Dataset, column: str, role: str) -> None:
    """Raises ValueError for a column of text that is numbers but for a few cells, such as `n/a`, or for commas."""
    cells = pd.Series(column_of(rows, column).to_pylist(), dtype=object)
    bad = np.flatnonzero(pd.to_numeric(cells, errors="coerce").isna() & cells.notna())
    commas = [place for place in bad if COMMA.fullmatch(cells[place].strip())]
    if commas and len(bad) - len(commas) < MOSTLY * len(cells):
        raise ValueError(
            f"column `{column}` of the {role} dataset holds numbers with a comma, such as {cells[commas[0]]!r}: write "
            "them with a point and without marks between thousands, or name the channels by `forecasting: {columns: "
            "[...]}`."
        )
    if len(bad) < MOSTLY * len(cells):
        complaint = f"holds numbers and the text {cells[bad[0]]!r}" if len(bad) else "holds its numbers as text"
        refuse_rows(rows, column, bad if len(bad) else np.array([0]), role, complaint)


def id_column_of(rows: Dataset, named: str | None) -> str | None:
    """The column that tells series apart, None where there is one series; usual names that number rows are none.

    Raises:
        ValueError: the one that was named is not there.
    """
    if named is not None:
        return existing(rows, named, "id_column")
    found = usual_column(rows, ID_COLUMNS)
    if found is None or len(set(column_of(rows, found).to_pylist())) < len(rows):
        return found
    logger.warning_once(f"column `{found}` numbers the rows and is not read.")
    return None


def time_column_of(rows: Dataset, named: str | bool | None) -> str | None:
    """The column of times, None where there is none or `named` is False.

    Raises:
        ValueError: the one that was named is not there.
    """
    if named is False:
        return None
    if named is not None:
        return existing(rows, named, "time_column")
    kinds = {name: str(getattr(feature, "dtype", "")) for name, feature in rows.features.items()}
    return usual_column(rows, TIME_COLUMNS) or next((one for one in kinds if kinds[one].startswith(TIMES)), None)


def usual_column(rows: Dataset, usual: Sequence[str]) -> str | None:
    """The first column of a usual name."""
    lowered = {name.lower(): name for name in reversed(rows.column_names)}
    return next((lowered[name] for name in usual if name in lowered), None)


def existing(rows: Dataset, named: Any, key: str) -> str:
    if named not in rows.column_names:
        raise ValueError(f"`forecasting`: `{key}` names {named!r}, and the table has {rows.column_names}.")
    return named


def check_long_enough(series: Sequence[Series], steps: int, needed: str, role: str) -> None:
    """Raises ValueError where a series has fewer steps; the first such one is named.

    Args:
        series: of `series_of`.
        steps: how many each needs.
        needed: the same in words.
        role: of the rows.
    """
    short = [one for one in series if len(one.values) < steps]
    if short:
        first = "" if short[0].name is None else f" in the series `{short[0].name}`"
        more = f" ({len(short)} of {len(series)} series are too short)" if len(series) > 1 else ""
        raise ValueError(
            f"the {role} dataset has {len(short[0].values)} steps{first}, fewer than {needed}{more}: give more steps, "
            "a smaller `context_length`, or leave short series out."
        )
