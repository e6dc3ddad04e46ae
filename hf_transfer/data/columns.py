"""Whole columns of a dataset, replaced or removed without losing the dataset's format."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

from hf_transfer.data.checks import LABEL_COLUMNS


def format_of(dataset: Dataset) -> dict[str, Any]:
    return {"type": dataset.format["type"], **dataset.format["format_kwargs"]}


def replace_column(dataset: Dataset, name: str, values: np.ndarray | list) -> Dataset:
    """The dataset with `name` holding `values`; class names are dropped, since -100 is not a class."""
    kept = dataset.with_format(None)
    if name in kept.column_names:
        kept = kept.remove_columns(name)
    kept = kept.add_column(name, [value.tolist() if hasattr(value, "tolist") else value for value in values])
    return kept.with_format(**format_of(dataset))


def without_labels(dataset: Dataset) -> Dataset:
    """The dataset without labels, under all their names: a collator that misses one name reads the next."""
    return dataset.remove_columns([name for name in LABEL_COLUMNS if name in dataset.column_names])
