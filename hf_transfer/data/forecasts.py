"""Windows of series for forecasting: the past that a model reads, and the future that it is to tell, in one row.

past_values  [L, C]      labels  [H * C], the H future steps one after the other
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Features, List, Value

from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.holes import row_name
from hf_transfer.data.optional import import_optional
from hf_transfer.data.step_tables import check_long_enough, series_of
from hf_transfer.data.time_series import SERIES, series_shape

PAST, FUTURE, LABELS = "past_values", "future_values", "labels"
WHOLE_NUMBERS = ("context_length", "prediction_length", "stride")
ACCEPTED = (*WHOLE_NUMBERS, "columns", "id_column", "time_column", "standardise")
SERIES_NAME = "series"
"""Column of the name of a window's series, where a table has several."""
CHANNELS = "_channels_of_the_table"
"""Column of the names of the table's columns that are channels, one JSON list in every row."""
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
    found = {"stride": 1, "columns": None, "id_column": None, "time_column": None, "standardise": True, **given}
    for name in WHOLE_NUMBERS:
        if isinstance(found[name], bool) or not isinstance(found[name], int) or found[name] < 1:
            raise ValueError(f"`forecasting`: `{name}` should be a whole number from 1 on, got {found[name]!r}.")
    if not isinstance(found["standardise"], bool):
        raise ValueError(f"`forecasting`: `standardise` should be true or false, got {found['standardise']!r}.")
    if found["columns"] is not None and (isinstance(found["columns"], str) or not found["columns"]):
        raise ValueError(f"`forecasting`: `columns` should be a list of names, got {found['columns']!r}.")
    return found


def windows_of(rows: Dataset, settings: Mapping[str, Any] | None, role: str) -> Dataset:
    """Windows of a table whose rows are steps in the order of time.

    Args:
        rows: of numbers, see `hf_transfer.data.step_tables`.
        settings: context_length L, prediction_length H, stride between windows, columns, id_column, time_column.
        role: of the rows, for messages.

    Raises:
        ValueError: as `checked_settings` and `series_of`; a series with fewer steps than one window.
    """
    found = checked_settings(settings)
    series, channels = series_of(rows, found, role)
    past, future = found["context_length"], found["prediction_length"]
    check_long_enough(series, past + future, f"the {past} + {future} of one window", role)
    cuts = [
        (one.name, one.values[start : start + past + future])
        for one in series
        for start in range(0, len(one.values) - past - future + 1, found["stride"])
    ]
    values = [values for _, values in cuts]
    labels = [one[past:].flatten().tolist() for one in values]
    windows = _named_windows([name for name, _ in cuts], [one[:past] for one in values], channels)
    return windows.add_column(LABELS, labels, feature=List(Value("float32")))


def last_windows(rows: Dataset, settings: Mapping[str, Any] | None, role: str) -> Dataset:
    """The last past of every series, whose future is not known. Arguments and errors as of `windows_of`."""
    found = checked_settings(settings)
    series, channels = series_of(rows, found, role)
    past = found["context_length"]
    check_long_enough(series, past, f"the {past} that the model reads", role)
    return _named_windows([one.name for one in series], [one.values[-past:] for one in series], channels)


def later_windows(
    windows: Dataset, count: int, settings: Mapping[str, Any] | None, role: str
) -> tuple[Dataset, Dataset, tuple[int, ...]]:
    """The last windows of every series of a table, and the windows before them that end before the steps that those
    are to tell begin.

    Args:
        windows: of `windows_of`.
        count: how many to hold out of all series together, as many of each.
        settings: as the windows were cut.
        role: of the windows, for the message.

    Returns:
        What is left, what is held out, and the numbers of the latter.

    Raises:
        ValueError: a series has too few windows for both.
    """
    found = checked_settings(settings)
    names = windows[SERIES_NAME] if SERIES_NAME in windows.column_names else [None] * len(windows)
    groups: dict[str | None, list[int]] = {}
    for number, name in enumerate(names):
        groups.setdefault(name, []).append(number)
    each = -(-count // len(groups))
    between = -(-found["prediction_length"] // found["stride"]) - 1
    for name, numbers in groups.items():
        if each + between >= len(numbers):
            which = "" if name is None else f" of the series {name!r}"
            raise ValueError(
                f"the {role} rows have {len(numbers)} windows{which}: {each} held out and the {between} that overlap "
                "with what these tell leave none to train on: hold out fewer, or give more steps."
            )
    later = sorted(number for numbers in groups.values() for number in numbers[-each:])
    earlier = sorted(number for numbers in groups.values() for number in numbers[: len(numbers) - each - between])
    return windows.select(earlier), windows.select(later), tuple(later)


def _named_windows(names: Sequence[str | None], past: Sequence[np.ndarray], channels: Sequence[str]) -> Dataset:
    rows: dict[str, list] = {PAST: [one.tolist() for one in past], CHANNELS: [json.dumps(channels)] * len(past)}
    features = Features({PAST: List(List(Value("float32"))), CHANNELS: Value("string")})
    if None not in names:
        rows[SERIES_NAME], features[SERIES_NAME] = list(names), Value("string")
    return Dataset.from_dict(rows, features=features)


def channel_names(windows: Dataset) -> list[str] | None:
    """The names of the channels of a table's windows; None of other windows."""
    return json.loads(windows[0][CHANNELS]) if CHANNELS in windows.column_names else None


def scale_of(windows: Dataset) -> dict[str, list[float]]:
    """The mean and the deviation of every channel over all steps of the windows of `windows_of`."""
    past = np.asarray(windows.with_format(None)[PAST][:], dtype=np.float64)
    future = np.asarray(windows.with_format(None)[LABELS][:], dtype=np.float64).reshape(len(past), -1, past.shape[2])
    steps = np.concatenate([past, future], axis=1)
    deviation = steps.std(axis=(0, 1))
    return {"mean": steps.mean(axis=(0, 1)).tolist(), "deviation": np.where(deviation > 0, deviation, 1.0).tolist()}


def standardised(windows: Dataset, scale: Mapping[str, Sequence[float]]) -> Dataset:
    """Windows in deviations from the mean, past and future alike.

        x = (x - mean) / deviation

    Args:
        windows: with `past_values`, and `labels` where they have any.
        scale: of every channel, see `scale_of`.

    Raises:
        ValueError: another number of channels.
    """
    mean, deviation = np.asarray(scale["mean"]), np.asarray(scale["deviation"])
    channels = series_shape(windows)[0]
    if channels != len(mean):
        raise ValueError(f"the rows have {channels} channels, and the model was trained on {len(mean)}.")

    def scaled(batch: dict[str, list]) -> dict[str, list]:
        found = {PAST: [((np.asarray(one) - mean) / deviation).tolist() for one in batch[PAST]]}
        if LABELS in batch:
            rows = [np.asarray(one).reshape(-1, channels) for one in batch[LABELS]]
            found[LABELS] = [((one - mean) / deviation).flatten().tolist() for one in rows]
        return found

    return windows.with_format(None).map(scaled, batched=True, features=windows.features, desc="Standardising")


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
