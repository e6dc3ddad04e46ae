"""Class labels by name, so that two datasets number the same classes alike.

Folders of images and columns of words are numbered in the order of their names, each dataset by itself: a test folder
without the first class would shift every number by one, and accuracy would be wrong without any error.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from datasets import ClassLabel, Dataset

from hf_transfer.data.checks import LABEL_COLUMNS, column_values
from hf_transfer.data.columns import replace_column

WORDS = ("string", "large_string")
"""The types that a column of text may have; csv files are read as the second."""


def named_label_column(dataset: Dataset) -> str | None:
    """The label column, where its labels have names: a ClassLabel or words."""
    for column in LABEL_COLUMNS:
        feature = dataset.features.get(column)
        if isinstance(feature, ClassLabel) or getattr(feature, "dtype", None) in WORDS:
            return column
    return None


def number_words(dataset: Dataset) -> Dataset:
    """The dataset with a label column of words as a ClassLabel, numbered in alphabetical order."""
    column = named_label_column(dataset)
    if column is None or isinstance(dataset.features[column], ClassLabel):
        return dataset
    return dataset.class_encode_column(column)


def check_label_spaces(source: Dataset, target: Dataset, made_for: Collection[str] = ()) -> None:
    """Source and target have the same classes, or the methods are made for those that they have.

    The names of the classes are compared; no label of the target is read.

    Args:
        source: rows whose label column may be a ClassLabel.
        target: likewise; without names there is nothing to compare.
        made_for: `label_space` of the run's objectives.

    Raises:
        ValueError: the target lacks classes and no method is "partial", or has others and none is "open".
    """
    names = [
        set(dataset.features[column].names)
        for dataset in (source, target)
        if (column := named_label_column(dataset)) and isinstance(dataset.features[column], ClassLabel)
    ]
    if len(names) == 2:
        check_names(*names, made_for)


def check_names(source: Collection[str], target: Collection[str], made_for: Collection[str] = ()) -> None:
    """As `check_label_spaces`, of the names of the classes of source and target."""
    lacking, other = set(source) - set(target), set(target) - set(source)
    if lacking and "partial" not in made_for:
        raise ValueError(
            f"the target lacks classes of the source: {_first(lacking)}. That is partial domain adaptation: use pada "
            "or iwan, or leave these classes out of the source."
            + (f" It also has classes that the source lacks: {_first(other)}." if other else "")
        )
    if other and "open" not in made_for:
        raise ValueError(
            f"the target has classes that the source lacks: {_first(other)}. That is open-set domain adaptation: use "
            "osbp, or leave these classes out of the target."
        )


def _first(names: set[str]) -> str:
    return ", ".join(sorted(names)[:10])


def numbered_as(dataset: Dataset, names: Sequence[str], role: str) -> Dataset:
    """The dataset with its labels numbered by their place in `names`; as it is where its labels have no names.

    Args:
        dataset: rows whose labels are a ClassLabel or words.
        names: class names of the training data or the model.
        role: what the dataset is for, for the message.

    Raises:
        ValueError: a class that is not in `names`.
    """
    dataset = number_words(dataset)
    column = named_label_column(dataset)
    if column is None or dataset.features[column].names == list(names):
        return dataset
    here = dataset.features[column].names
    unknown = [name for name in here if name not in names]
    if unknown:
        raise ValueError(
            f"the {role} dataset has {len(here)} classes, and these are none of the {len(names)} that the model is to "
            f"tell apart ({', '.join(list(names)[:10])}): {', '.join(unknown[:10])}."
        )
    numbers = np.array([names.index(name) for name in here])
    labels = column_values(dataset, column)
    return replace_column(dataset, column, np.where(labels < 0, labels, numbers[labels]))
