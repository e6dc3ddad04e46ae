"""The rows of a source and a target as one dataset, without the labels of the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Value, concatenate_datasets
from transformers.utils import logging

from hf_transfer.core.objective import IGNORED_LABEL, SOURCE, TARGET
from hf_transfer.data.checks import LABEL_COLUMNS, check_not_empty, check_two_domains, column_values, label_column
from hf_transfer.data.columns import format_of, replace_column, without_labels

logger = logging.get_logger(__name__)

NO_MAP = b""
"""The map of a row whose pixels have no known classes, where maps are stored as bytes."""


def hold_out_source(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Training rows, and the rows for validators: all of the target, and of the source what is held out, or else all.

    Args:
        dataset: both domains.
        share: of the source rows that are held out.
        seed: of which.

    Raises:
        ValueError: the share leaves no row on one side.
    """
    if share == 0:
        return dataset, dataset
    domains = column_values(dataset, "domain")
    source = np.random.default_rng(seed).permutation(np.flatnonzero(domains == SOURCE))
    count = round(share * len(source))
    if not 0 < count < len(source):
        raise ValueError(f"`source_holdout={share}` holds {count} of the {len(source)} source rows out.")
    held, rest = np.sort(source[:count]), np.sort(source[count:])
    target = np.flatnonzero(domains == TARGET)
    return tuple(dataset.select(np.sort(np.concatenate([rows, target]))) for rows in (rest, held))


def join_domains(source: Dataset, target: Dataset | None, ignored_part: int | None = None) -> Dataset:
    """One dataset with a `domain` column and no target labels.

    Args:
        source: labelled rows, or rows of both domains with a `domain` column when `target` is None.
        target: rows of the target domain.
        ignored_part: the class that means no label where parts of rows have labels, such as tokens or pixels; None
            where whole rows do.

    Raises:
        ValueError: a domain is missing or empty, or both datasets have different columns.
    """
    if target is None:
        return _without_target_labels(source, ignored_part)
    for name, dataset in (("source", source), ("target", target)):
        check_not_empty(dataset, name)
    column, labels = _labels_of(source, "source", ignored_part)
    for name in LABEL_COLUMNS:
        if name in target.column_names:
            _tell_of_labels(name)
    unknown = _unknown_labels(target, column, labels, ignored_part)
    source = replace_column(without_labels(source), column, labels)
    target = replace_column(without_labels(target), column, unknown)
    source = replace_column(source, "domain", np.full(len(source), SOURCE))
    target = replace_column(target, "domain", np.full(len(target), TARGET))
    missing = set(source.column_names) ^ set(target.column_names)
    if missing:
        raise ValueError(f"source and target should have the same columns; these are in one only: {sorted(missing)}.")
    target = target.select_columns(source.column_names).with_format(None)
    joined = concatenate_datasets([source.with_format(None), target.cast(source.features)])
    return joined.with_format(**format_of(source))


def _without_target_labels(both: Dataset, ignored_part: int | None) -> Dataset:
    if "domain" not in both.column_names:
        raise ValueError(
            "one domain is missing: pass `target_dataset`, or a dataset with a `domain` column (0 = source, "
            f"1 = target); this one has {both.column_names}."
        )
    check_not_empty(both, "training")
    domains = column_values(both, "domain")
    check_two_domains(domains)
    column, labels = _labels_of(both, "training", ignored_part)
    ignored = IGNORED_LABEL if ignored_part is None else ignored_part
    read = False
    for row in np.flatnonzero(domains == TARGET):
        hidden = NO_MAP if isinstance(labels[row], bytes) else ignored
        read = read or bool(np.any(labels[row] != hidden))
        labels[row] = hidden if ignored_part is None or hidden is NO_MAP else np.full_like(labels[row], ignored)
    if read:
        _tell_of_labels(column)
    return replace_column(without_labels(both), column, labels)


def _unknown_labels(
    target: Dataset, column: str, labels: np.ndarray | list[np.ndarray], ignored_part: int | None
) -> np.ndarray | list[np.ndarray]:
    """Labels that say nothing, in the form of those of the source."""
    if ignored_part is None:
        return np.full((len(target), *labels.shape[1:]), IGNORED_LABEL).astype(labels.dtype)
    if isinstance(labels[0], bytes):
        return [NO_MAP] * len(target)
    if column in target.column_names:
        shapes: Sequence[Any] = [one.shape for one in _label_lists(target, column)]
    elif "input_ids" in target.column_names:
        shapes = [(len(tokens),) for tokens in target.with_format(None)["input_ids"]]
    elif "pixel_values" in target.column_names:
        pictures = target.with_format("numpy", columns=["pixel_values"])
        shapes = [np.shape(row["pixel_values"])[-2:] for row in pictures]
    else:
        raise ValueError(
            f"the target has no column `{column}`, nor `input_ids` or `pixel_values` to tell how many labels a row "
            f"would have; it has {target.column_names}. Add one that holds {ignored_part} throughout."
        )
    return [np.full(shape, ignored_part) for shape in shapes]


def _tell_of_labels(column: str) -> None:
    logger.warning(f"the target has labels (column `{column}`); they are not read.")


def _labels_of(dataset: Dataset, name: str, ignored_part: int | None) -> tuple[str, np.ndarray | list[np.ndarray]]:
    """The label column and a copy of its values, of a type that can hold `IGNORED_LABEL`."""
    column = label_column(dataset, name)
    if ignored_part is not None:
        return column, _label_lists(dataset, column)
    values = column_values(dataset, column)
    return column, values.astype(np.int64 if values.dtype.kind in "iub" else values.dtype)


def _label_lists(dataset: Dataset, column: str) -> list:
    """The labels of the parts of each row; maps that are stored as bytes as they are."""
    if dataset.features[column] == Value("binary"):
        return dataset.with_format(None)[column][:]
    rows = map(np.asarray, dataset.with_format("numpy", columns=[column])[:][column])
    return [row.astype(np.int64) if row.dtype.kind in "iub" else row for row in rows]
