"""From pictures with tables of numbers, such as boxes or points, to `pixel_values` and `labels`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import Dataset, Features, Image, List, Value
from transformers import PreTrainedConfig

from hf_transfer.data.columns import format_of
from hf_transfer.data.images import check_whole_pictures, undecoded
from hf_transfer.data.prepare import prepare

TABLE = List(List(Value("float32")))


def with_new_labels(rows: Dataset, convert: Callable[..., dict[str, Any]], feature: Any, says: str) -> Dataset:
    """The rows with other labels; their pictures are not decoded.

    Args:
        rows: a column of pictures, and `labels`.
        convert: a picture as it is stored, its labels and the number of the row -> {"labels": ...}.
        feature: of the new labels.
        says: what a progress bar is called.
    """
    image = next(name for name, kind in rows.features.items() if isinstance(kind, Image))
    plain = undecoded(rows.with_format(None), image)
    features = Features({**plain.features, "labels": feature})
    made = plain.map(convert, input_columns=[image, "labels"], with_indices=True, features=features, desc=says)
    return made.cast_column(image, rows.features[image]).with_format(**format_of(rows))


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
