"""Splits that imitate scarce labels, reproducible from a seed."""

from __future__ import annotations

import numpy as np
from datasets import Dataset, DatasetDict

from hf_transfer.data.checks import column_values, label_column


def scarce_split(dataset: Dataset, labels_per_class: int, test_rows: int, seed: int = 0) -> DatasetDict:
    """Splits `train` (a few labelled rows a class), `test` (held out) and `unlabelled` (the rest).

    Args:
        dataset: labelled rows.
        labels_per_class: rows of each class in `train`.
        test_rows: rows in `test`.
        seed: the same seed gives the same split.

    Raises:
        ValueError: the dataset is too small for the split.
    """
    if not 0 <= test_rows < len(dataset):
        raise ValueError(f"`test_rows` should be between 0 and {len(dataset) - 1}, got {test_rows}.")
    labels = column_values(dataset, label_column(dataset, "given"))
    order = np.random.default_rng(seed).permutation(len(labels))
    test, rest = order[:test_rows], order[test_rows:]
    train = []
    for label in np.unique(labels):
        members = rest[labels[rest] == label]
        if len(members) < labels_per_class:
            raise ValueError(
                f"class {label} has {len(members)} rows outside the test split, fewer than "
                f"labels_per_class={labels_per_class}."
            )
        train.extend(members[:labels_per_class].tolist())
    unlabelled = sorted(set(rest.tolist()) - set(train))
    return DatasetDict(
        train=dataset.select(sorted(train)),
        test=dataset.select(sorted(test.tolist())),
        unlabelled=dataset.select(unlabelled),
    )
