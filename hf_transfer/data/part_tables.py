"""From pictures with tables of numbers, such as boxes or points, to `pixel_values` and `labels`."""

from __future__ import annotations

from typing import Any

from datasets import Dataset, List, Value
from transformers import PreTrainedConfig

from hf_transfer.data.images import check_whole_pictures
from hf_transfer.data.prepare import prepare

TABLE = List(List(Value("float32")))


def with_part_tables(
    rows: Dataset, config: PreTrainedConfig, processor: Any, unknown: list[list[float]], keep_labels: bool
) -> Dataset:
    """Arranged rows as inputs of a model.

    Args:
        rows: a column of pictures, and `labels` as tables where they are known; labels of another form are not read.
        config: of the model.
        processor: its image processor, or None.
        unknown: the table of a row whose labels are not known.
        keep_labels: False drops the labels.

    Raises:
        ValueError: the processor cuts pictures, which the labels would not follow.
    """
    check_whole_pictures(processor)
    is_known = rows.features.get("labels") == TABLE
    if "labels" in rows.column_names and not (keep_labels and is_known):
        rows = rows.remove_columns("labels")
    if keep_labels and not is_known:
        kept = rows.with_format(None)
        rows = kept.add_column("labels", [unknown] * len(rows), feature=TABLE)
    return prepare(rows, config, processor)
