"""Which columns of a data set hold the text: told, and never guessed where a guess may give the labels away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset
from transformers.utils import logging

from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.class_names import WORDS
from hf_transfer.data.holes import column_of

logger = logging.get_logger(__name__)

LEAST_SHARE = 0.9
"""Of what one column leaves open of another: from there on it is taken for a function of it."""


def find_text_columns(dataset: Dataset, label: str | None = None, option: str = "text_columns") -> list[str]:
    """The one or two text columns of a data set whose user names none; the choice is logged.

    Args:
        dataset: rows.
        label: the label column; a usual one when left out.
        option: how the user names columns, for the message.

    Raises:
        ValueError: none, more than two, or a pair of which one gives the labels away, is an id, or repeats another.
    """
    label = label or next((name for name in LABEL_COLUMNS if name in dataset.column_names), None)
    columns = texts_of_rows(dataset, [] if label is None else [label])
    if not 1 <= len(columns) <= 2:
        raise ValueError(
            f"found no image column and {len(columns)} text columns in {dataset.column_names}: name one or two by "
            f"`{option}`."
        )
    if len(columns) == 2:
        check_pair(dataset, columns, label, option)
    logger.warning_once(f"reading the text of {' and '.join(f'`{name}`' for name in columns)}.")
    return columns


def texts_of_rows(dataset: Dataset, labels: Sequence[str] = ()) -> list[str]:
    """The columns of text beside those of labels, of usual names or of these."""
    texts = [name for name, feature in dataset.features.items() if getattr(feature, "dtype", None) in WORDS]
    return [name for name in texts if name not in (*LABEL_COLUMNS, *labels)]


def check_texts_as(dataset: Dataset, names: Sequence[str], role: str, labels: Sequence[str] = ()) -> None:
    """Rows have the texts that a model is trained on, by name; or as many of other names, which is told of a pair.

    Args:
        dataset: rows of a test, a target or others.
        names: the text columns of the training rows.
        role: what the rows are for, for messages.
        labels: columns of labels, where they have no usual names.

    Raises:
        ValueError: some of these columns are missing and others there, or there are more or fewer columns of text.
    """
    missing = [name for name in names if name not in dataset.column_names]
    if not missing:
        return
    texts = texts_of_rows(dataset, labels)
    if len(missing) < len(names) or len(texts) != len(names):
        raise ValueError(
            f"the {role} rows have no text column `{missing[0]}`, and the model reads {list(names)}; they have the "
            f"text columns {texts}: call theirs as those of the training rows, or name them by `text_columns`."
        )
    if len(names) > 1:
        logger.warning(f"the {role} rows: {texts} are read, in this order, in the place of {list(names)}.")


def check_pair(dataset: Dataset, columns: list[str], label: str | None, option: str = "text_columns") -> None:
    """Raises ValueError when two columns are hardly the two texts of a row; the reason is named."""
    codes = {name: numbers_of(dataset, name) for name in columns}
    labels = None if label is None else numbers_of(dataset, label)
    for name in columns:
        reason = None
        if labels is not None and gives_away(codes[name], labels):
            reason = f"`{name}` tells the label `{label}`"
        elif looks_like_ids(dataset, name):
            reason = f"`{name}` holds words with digits, as ids and dates are"
        if reason:
            raise ValueError(_refusal(columns, reason, option))
    first, second = (column_of(dataset, name).to_pylist() for name in columns)
    if len(first) > 1 and sum(a == b for a, b in zip(first, second)) > LEAST_SHARE * len(first):
        raise ValueError(_refusal(columns, f"`{columns[1]}` repeats `{columns[0]}`", option))


def _refusal(columns: list[str], reason: str, option: str) -> str:
    return (
        f"the text columns {columns} would be read as a pair, and {reason}: name the one or two columns to read by "
        f"`{option}`."
    )


def numbers_of(dataset: Dataset, column: str) -> np.ndarray:
    """A number for every different value of a column, [N]; lists count as their text."""
    values = column_of(dataset, column).combine_chunks()
    if "list" in str(values.type):
        return np.unique([str(value) for value in values.to_pylist()], return_inverse=True)[1]
    return pc.fill_null(pc.dictionary_encode(values).indices, -1).to_numpy(zero_copy_only=False)


def gives_away(values: np.ndarray, labels: np.ndarray) -> bool:
    """Whether labels follow from values that repeat, or values from labels.

    What follows is measured as (share right - share of the commonest) / (1 - share of the commonest), where the
    commonest label of each value is answered.

    Args:
        values: [N] numbers of the different values.
        labels: [N] likewise.
    """
    return _follows(values, labels) or _follows(labels, values)


def _follows(known: np.ndarray, asked: np.ndarray) -> bool:
    kinds, total = len(np.unique(known)), len(known)
    commonest = np.unique(asked, return_counts=True)[1].max(initial=0) / max(1, total)
    # Values that are all different say nothing of what follows from them, nor does a column of one value.
    if kinds > total / 2 or kinds < 2 or commonest == 1:
        return False
    pairs, counts = np.unique(np.stack([known, asked]), axis=1, return_counts=True)
    best: dict[int, int] = {}
    for one, count in zip(pairs[0].tolist(), counts.tolist()):
        best[one] = max(best.get(one, 0), count)
    return (sum(best.values()) / total - commonest) / (1 - commonest) >= LEAST_SHARE


def looks_like_ids(dataset: Dataset, column: str) -> bool:
    """Whether a column holds single words, most of them with a digit."""
    values = [value for value in column_of(dataset, column).to_pylist() if value]
    if len(values) < 2 or any(" " in value.strip() for value in values):
        return False
    return sum(any(letter.isdigit() for letter in value) for value in values) > len(values) / 2
