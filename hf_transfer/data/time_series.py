"""Multivariate time series for classification, from the archives bundled with aeon.

Archive: Bagnall et al. 2018, https://huggingface.co/papers/1811.00075 (UEA); Dau et al. 2018,
https://huggingface.co/papers/1810.07758 (UCR).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from transformers.utils import logging

from hf_transfer.data.columns import format_of
from hf_transfer.data.holes import row_name
from hf_transfer.data.optional import import_optional

logger = logging.get_logger(__name__)

SCALED_ROWS = 1000
SERIES = {
    "japanese_vowels": "JapaneseVowels",
    "basic_motions": "BasicMotions",
    "arrow_head": "ArrowHead",
    "gun_point": "GunPoint",
    "osu_leaf": "OSULeaf",
    "italy_power_demand": "ItalyPowerDemand",
    "acsf1": "ACSF1",
    "pickup_gesture": "PickupGestureWiimoteZ",
}
"""Short name -> the archive's name of a set that travels inside aeon."""
VOWELS = {"vowel_a": "a", "vowel_e": "e"}
"""Short name -> which of the two vowels of an utterance of JapaneseVowels."""


@cache
def bundled_series(archive_name: str) -> DatasetDict:
    """Splits `train` and `test` of one set: `past_values`, T lists of C floats with T of its own in each row, and
    `label`.

    Every channel is standardised by its mean and deviation over all steps of the training split, the test split too:

        x = (x - mean_train) / deviation_train

    Args:
        archive_name: a value of `SERIES`.

    Raises:
        ValueError: aeon is not installed.
    """
    loaders = import_optional("aeon.datasets", f"the data set {archive_name}")
    raw = {split: loaders.load_classification(archive_name, split=split) for split in ("train", "test")}
    steps = np.concatenate([np.asarray(series).T for series in raw["train"][0]])
    mean, deviation = steps.mean(0), np.maximum(steps.std(0), 1e-8)
    names = sorted({str(label) for label in raw["train"][1]}, key=lambda name: (len(name), name))
    features = Features({"past_values": List(List(Value("float32"))), "label": ClassLabel(names=names)})
    splits = {}
    for split, (series, labels) in raw.items():
        values = [((np.asarray(one).T - mean) / deviation).astype(np.float32).tolist() for one in series]
        rows = {"past_values": values, "label": [str(label) for label in labels]}
        splits[split] = Dataset.from_dict(rows, features=features)
    return DatasetDict(splits)


def vowel_series(vowel: str) -> DatasetDict:
    """One of the two vowels of each utterance of JapaneseVowels, whose label is the speaker: two domains.

    Nine men said /ae/, the vowel a and then e (Kudo et al. 1999, https://doi.org/10.1016/S0167-8655(99)00077-X): the
    first half of the steps is taken as the one, the rest as the other. The splits were recorded on different
    occasions. Both vowels are standardised by the statistics of whole utterances.

    Args:
        vowel: "a" or "e".
    """

    def half(rows: dict) -> dict:
        cuts = [len(series) // 2 for series in rows["past_values"]]
        parts = [series[:cut] if vowel == "a" else series[cut:] for series, cut in zip(rows["past_values"], cuts)]
        return {"past_values": parts}

    return bundled_series(SERIES["japanese_vowels"]).map(half, batched=True, desc=f"The vowel {vowel}")


def series_shape(dataset: Dataset) -> tuple[int, int]:
    """(number of channels, longest number of steps) of the column `past_values`.

    Raises:
        ValueError: what is no series, a series without steps or with a step that is no finite number (the row is
            named), or series of different numbers of channels.
    """
    channels, longest = set(), 0
    for index, series in enumerate(dataset.select_columns(["past_values"]).with_format(None)["past_values"]):
        if series is not None and len(series) == 0:
            raise ValueError("`past_values` holds a series without any step.")
        if not is_series(series):
            raise ValueError(
                f"{row_name(dataset, index, 'past_values')} holds {str(series)[:40]!r}, and a series is a list of "
                "steps, each a list of a number for every channel: save the rows as json or parquet."
            )
        channels |= {len(step) for step in series}
        longest = max(longest, len(series))
        bad = first_bad_step(series)
        if bad is not None:
            raise ValueError(
                f"{row_name(dataset, index, 'past_values')} holds {series[bad]} at step {bad}, and a model reads "
                "finite numbers alone: fill these steps, or leave the row out."
            )
    if len(channels) != 1:
        raise ValueError(f"all steps of `past_values` should have one number of channels, got {sorted(channels)}.")
    return channels.pop(), longest


def is_series(value: Any) -> bool:
    """Whether a cell is a list of lists, or an array of two dimensions."""
    return not isinstance(value, str) and value is not None and all(hasattr(step, "__len__") for step in value)


def first_bad_step(series: Any) -> int | None:
    """The first step with an item that is no finite number; None where all are, or steps have different lengths."""
    if len({len(step) for step in series}) > 1:
        return None
    try:
        finite = np.isfinite(np.asarray(series, dtype=np.float64))
    except (TypeError, ValueError):  # words
        return 0
    return None if finite.all() else int(np.flatnonzero(~finite.all(axis=1))[0])


def tell_scale(rows: Dataset) -> None:
    """Warn of series whose values are far from a mean of 0 and a deviation of 1, by the first `SCALED_ROWS` rows."""
    series = rows.select(range(min(len(rows), SCALED_ROWS))).select_columns(["past_values"]).with_format(None)
    try:
        values = np.array([one for row in series["past_values"] for step in row for one in step], dtype=np.float64)
    except (TypeError, ValueError):
        return  # `series_shape` says what is no series
    mean, deviation = values.mean(), values.std()
    if np.isfinite(deviation) and (abs(mean) > 3 * max(deviation, 1.0) or not 0.1 < deviation < 10):
        logger.warning(
            f"the series have a mean of {mean:.3g} and a deviation of {deviation:.3g}, and are read as they are: "
            "models learn better at a mean near 0 and a deviation near 1. Standardise all files by the training file."
        )


def with_channels(rows: Dataset) -> Dataset:
    """Rows whose `past_values` are [T, C]; a list of numbers [T] is a series of one channel."""
    feature = rows.features.get("past_values")
    inner = getattr(feature, "feature", None)
    if not isinstance(inner, Value) or not inner.dtype.startswith(("int", "uint", "float")):
        return rows
    plain = rows.with_format(None)
    series = [None if one is None else [[value] for value in one] for one in plain["past_values"]]
    features = List(List(Value("float32")))
    made = plain.remove_columns("past_values").add_column("past_values", series, feature=features)
    return made.with_format(**format_of(rows))
