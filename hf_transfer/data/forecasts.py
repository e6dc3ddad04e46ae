"""Windows of series for forecasting: the past that a model reads, and the future that it is to tell, in one row.

past_values  [L, C]      labels  [H * C], the H future steps one after the other
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Features, List, Value

from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.holes import refuse_empty_cells, row_name
from hf_transfer.data.optional import import_optional
from hf_transfer.data.time_series import SERIES

PAST, FUTURE, LABELS = "past_values", "future_values", "labels"
ACCEPTED = ("context_length", "prediction_length", "stride", "columns")
HOURS_READ = 16
"""Of a day of ItalyPowerDemand; the other 8 are to be told."""
SEASONS = {"winter": 0, "summer": 1}


def checked_settings(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The argument `forecasting` with its defaults.

    Raises:
        ValueError: an unknown or missing key, or a number below 1.
    """
    given = dict(settings or {})
    if set(given) - set(ACCEPTED) or not {"context_length", "prediction_length"} <= set(given):
        raise ValueError(
            "a table of steps is cut into windows by `forecasting: {context_length: 96, prediction_length: 24}`, and "
            f"possibly {list(ACCEPTED[2:])}; got {given}."
        )
    found = {"stride": 1, "columns": None, **given}
    for name in ACCEPTED[:3]:
        if not isinstance(found[name], int) or found[name] < 1:
            raise ValueError(f"`forecasting`: `{name}` should be a whole number from 1 on, got {found[name]!r}.")
    return found


def number_columns(rows: Dataset, named: Sequence[str] | None) -> list[str]:
    """The columns of numbers, one for each channel.

    Raises:
        ValueError: none, or one that was named and holds no numbers.
    """
    kinds = {name: str(getattr(feature, "dtype", "")) for name, feature in rows.features.items()}
    found = [name for name, kind in kinds.items() if kind.startswith(("int", "float", "double"))]
    missing = [name for name in named or () if name not in found]
    if missing or not found:
        raise ValueError(f"`forecasting`: {missing or 'no columns'} hold numbers, which {found} of {list(kinds)} do.")
    return list(named or found)


def windows_of(rows: Dataset, settings: Mapping[str, Any] | None, role: str) -> Dataset:
    """Windows of a table whose rows are steps in the order of time.

    Args:
        rows: of numbers.
        settings: context_length L, prediction_length H, stride between windows, columns.
        role: of the rows, for messages.

    Raises:
        ValueError: as `checked_settings` and `number_columns`; an empty cell; fewer steps than one window.
    """
    found = checked_settings(settings)
    columns = number_columns(rows, found["columns"])
    refuse_empty_cells(rows, columns, role)
    values = np.stack([np.asarray(rows.with_format(None)[name][:], dtype=np.float32) for name in columns], axis=1)
    past, future = found["context_length"], found["prediction_length"]
    if len(values) < past + future:
        raise ValueError(
            f"the {role} dataset has {len(values)} steps, fewer than the {past} + {future} of one window: give more, "
            "or a smaller `context_length`."
        )
    starts = range(0, len(values) - past - future + 1, found["stride"])
    return Dataset.from_dict(
        {
            PAST: [values[start : start + past].tolist() for start in starts],
            LABELS: [values[start + past : start + past + future].flatten().tolist() for start in starts],
        },
        features=Features({PAST: List(List(Value("float32"))), LABELS: List(Value("float32"))}),
    )


def with_flat_future(rows: Dataset, role: str) -> Dataset:
    """Rows with `future_values` [H, C] or [H] as `labels` [H * C].

    Raises:
        ValueError: rows of different sizes, or without a number; the first is named.
    """
    flat, size = [], None
    for index, future in enumerate(rows.with_format(None)[FUTURE]):
        values = np.asarray(future, dtype=object)
        row = np.asarray(values.flatten().tolist(), dtype=object)
        size = len(row) if size is None else size
        numbers = [one for one in row if isinstance(one, int | float) and np.isfinite(one)]
        if len(row) != size or len(numbers) != size or size == 0:
            raise ValueError(
                f"{row_name(rows, index, FUTURE)} of the {role} dataset holds {len(numbers)} numbers of "
                f"{size}: every row tells as many steps of as many channels."
            )
        flat.append([float(one) for one in row])
    others = [name for name in (FUTURE, *LABEL_COLUMNS) if name in rows.column_names]
    return rows.with_format(None).remove_columns(others).add_column(LABELS, flat, feature=List(Value("float32")))


def power_demand(season: str | None = None) -> DatasetDict:
    """Days of ItalyPowerDemand, standardised each by the whole: 16 hours are read, and the next 8 are to be told.

    Keogh et al. 2006; the archive's split, 67 days to train on and 1,029 to test.

    Args:
        season: "winter" (October to March) or "summer", two domains; both when left out.

    Raises:
        ValueError: another season, or aeon is not installed.
    """
    if season not in (None, *SEASONS):
        raise ValueError(f"`season` should be one of {list(SEASONS)}, got {season!r}.")
    loaders = import_optional("aeon.datasets", "the data set power_demand")
    splits = {}
    for split in ("train", "test"):
        days, kinds = loaders.load_classification(SERIES["italy_power_demand"], split=split)
        names = sorted({str(kind) for kind in kinds})
        kept = [day[0] for day, kind in zip(days, kinds) if season in (None, list(SEASONS)[names.index(str(kind))])]
        splits[split] = Dataset.from_dict(
            {
                PAST: [[[float(value)] for value in day[:HOURS_READ]] for day in kept],
                LABELS: [[float(value) for value in day[HOURS_READ:]] for day in kept],
            },
            features=Features({PAST: List(List(Value("float32"))), LABELS: List(Value("float32"))}),
        )
    return DatasetDict(splits)
