"""Pictures with masks, boxes or key points as rows with a label each, so that models can be ranked for them.

masks, boxes   which classes a picture shows, [C] of 0 and 1; classes that all or no pictures show are left out
key points     where they are, [2 K] shares of the sides; pictures with unseen points are left out
"""

from __future__ import annotations

import numpy as np
from datasets import Dataset, List, Value
from transformers.utils import logging

from hf_transfer.core.task_loss import IGNORED_LABEL
from hf_transfer.data.keypoints import POINT_COLUMNS, arranged_points, point_column, point_labels, with_point_shares
from hf_transfer.data.masks import MASK_COLUMNS, arranged_masks, mask_column, read_mask_labels, shown_classes
from hf_transfer.data.objects import (
    OBJECT_COLUMNS,
    arranged_objects,
    object_column,
    object_labels,
    shown_categories,
    with_tables,
)

logger = logging.get_logger(__name__)

SCENE_COLUMNS = (*MASK_COLUMNS, *OBJECT_COLUMNS, *POINT_COLUMNS)
"""Usual names of columns of masks, boxes and key points."""


def scene_column(rows: Dataset, column: str | None = None) -> str | None:
    """The column of masks, boxes or key points of pictures; None without any."""
    found = (find(rows, column) for find in (mask_column, object_column, point_column))
    return next((name for name in found if name is not None), None)


def with_picture_labels(rows: Dataset, column: str) -> Dataset:
    """The rows as a column of pictures and `column` with a list of numbers for each.

    Raises:
        ValueError: labels that cannot be read, or that are the same for all pictures.
    """
    if mask_column(rows, column):
        arranged, kind = read_mask_labels(arranged_masks(rows, "given", column), "given")
        values = shown_classes(arranged, kind.outputs)
        arranged = arranged.select_columns([name for name in arranged.column_names if name != "classes"])
    elif object_column(rows, column):
        arranged = arranged_objects(rows, "given", column)
        kind = object_labels(arranged)
        arranged = with_tables(arranged, kind, "given")
        values = shown_categories(arranged, kind.outputs)
    else:
        arranged = arranged_points(rows, "given", column)
        kind = point_labels(arranged, "given")
        arranged = with_point_shares(arranged, kind.outputs, "given")
        values = np.asarray(arranged.with_format(None)["labels"][:]).reshape(len(arranged), -1)
        seen = (values != IGNORED_LABEL).all(axis=1)
        arranged, values = arranged.select(np.flatnonzero(seen)), values[seen]
    differs = values.std(axis=0) > 0 if len(values) else np.zeros(0, dtype=bool)
    if not differs.any():
        raise ValueError(f"column `{column}`: every picture shows the same, so that there is nothing to rank by.")
    logger.warning_once(f"ranking on {len(values)} pictures, column `{column}`: {kind.in_words()} of each picture.")
    plain = arranged.with_format(None).remove_columns("labels")
    return plain.add_column(column, values[:, differs].tolist(), feature=List(Value("float32")))
