"""Pictures with key points: read from a column `keypoints`, checked against the pictures.

A cell is [[x, y], ...], [[x, y, visible], ...] or COCO's flat [x, y, visible, ...] (0, 1 or 2) in pixels; 0 says that
the point is not there. A prepared row has [K, 2] shares of the picture's sides, `IGNORED_LABEL` for a point that is
not seen. Names of points come from `id2label`, or are numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset, Image, Value

from hf_transfer.core.task_loss import IGNORED_LABEL, REGRESSION
from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.holes import row_name
from hf_transfer.data.images import only_picture_column
from hf_transfer.data.labels import LabelKind
from hf_transfer.data.masks import size_of
from hf_transfer.data.part_tables import TABLE, with_new_labels

POINT_COLUMNS = ("keypoints", "key_points", "landmarks", "labels", "label")
FLAGS = (0, 1, 2)
"""Of COCO: there is no such point, it is hidden, it is seen."""
ROUNDING = 1.0
"""Pixels by which a point may leave its picture."""


def point_column(rows: Dataset, column: str | None = None) -> str | None:
    """The column of key points: the one asked for, or one of `POINT_COLUMNS` that holds lists of numbers."""
    if not any(isinstance(feature, Image) for feature in rows.features.values()):
        return None
    for name in POINT_COLUMNS if column is None else (column,):
        # a flat list under a usual name is one of several labels that hold at once
        if is_numbers(rows.features.get(name), nested=name in LABEL_COLUMNS):
            return name
    return None


def is_numbers(feature: Any, nested: bool = False) -> bool:
    """Whether a feature is a list of such lists, or unless `nested` a list of numbers."""
    inner = getattr(feature, "feature", None)
    if nested and not hasattr(inner, "feature"):
        return False
    inner = getattr(inner, "feature", inner)
    return isinstance(inner, Value) and any(kind in inner.dtype for kind in ("int", "float"))


def arranged_points(rows: Dataset, role: str, column: str | None = None) -> Dataset:
    """The rows as a column of pictures and `labels` with key points where there are any.

    Raises:
        ValueError: none or several columns of pictures, or a column of points that is not there.
    """
    pictures = only_picture_column(rows, role)
    found = point_column(rows, column)
    if found is None and column is not None:
        raise ValueError(f"the {role} rows have no column `{column}` of key points; they have {rows.features}.")
    kept = [pictures, *([found] if found else []), *({"domain"} & set(rows.column_names))]
    rows = rows.select_columns(kept)
    return rows.rename_column(found, "labels") if found not in (None, "labels") else rows


def points_of(cell: Any, name: str) -> np.ndarray:
    """The points [K, 3] of a cell: x, y and whether it is seen.

    Raises:
        ValueError: no points, or numbers that are not [x, y] or [x, y, visible] for each.
    """
    try:
        values = np.asarray(cell, dtype=float)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.ndim == 1 and values.size and values.size % 3 == 0:
        values = values.reshape(-1, 3)
        if not np.isin(values[:, 2], FLAGS).all():
            raise ValueError(
                f"{name}: numbers in one list are [x, y, visible, ...] with `visible` 0, 1 or 2, got {cell!r}: give "
                "each point a list of its own, [[x, y], ...]."
            )
    if values.ndim != 2 or values.shape[1] not in (2, 3) or not len(values):
        raise ValueError(f"{name}: key points should be [[x, y, visible], ...] in pixels, got {cell!r}.")
    if values.shape[1] == 2:
        values = np.concatenate([values, np.ones((len(values), 1))], axis=1)
    return values


def point_labels(rows: Dataset, role: str, names: tuple[str, ...] | None = None) -> LabelKind:
    """What the points of arranged rows are: as many in every row.

    Args:
        rows: arranged, with labels.
        role: what they are for, for messages.
        names: of the points; numbers when left out.

    Raises:
        ValueError: rows with different numbers of points, or as many names as points are not there.
    """
    cells = rows.with_format(None).select_columns(["labels"])["labels"]
    first = len(points_of(cells[0], f"row 0 of the {role} rows"))
    for place, cell in enumerate(cells):
        count = len(points_of(cell, f"{row_name(rows, place)} of the {role} rows"))
        if count != first:
            raise ValueError(
                f"{row_name(rows, place)} of the {role} rows has {count} key points and the first row {first}: every "
                "picture should have the same points, those that are not seen with `visible` 0."
            )
    if names is not None and len(names) != first:
        raise ValueError(f"`id2label` names {len(names)} key points, and every row of the {role} rows has {first}.")
    return LabelKind(REGRESSION, first, names or tuple(str(number) for number in range(first)))


def with_point_shares(rows: Dataset, points: int, role: str) -> Dataset:
    """Arranged rows whose `labels` are [K, 2] shares of the sides, `IGNORED_LABEL` where a point is not seen.

    Args:
        rows: arranged, with labels.
        points: K, of the model.
        role: what they are for, for messages.

    Raises:
        ValueError: another number of points, or a seen point outside its picture; file and row are named.
    """

    def shares(picture: dict[str, Any], cell: Any, place: int) -> dict[str, Any]:
        name = f"{picture.get('path') or row_name(rows, place)} ({role} rows, row {place})"
        values = points_of(cell, name)
        if len(values) != points:
            raise ValueError(f"{name} has {len(values)} key points, and the model {points}.")
        return {"labels": shares_of(values, size_of(picture), name).tolist()}

    return with_new_labels(rows, shares, TABLE, "Points")


def seen_anywhere(rows: Dataset) -> np.ndarray:
    """Which points are seen in some picture, [K] bool, of rows `with_point_shares`."""
    return (np.asarray(rows.with_format(None)["labels"][:]) >= 0).all(axis=2).any(axis=0)


def with_points(rows: Dataset) -> Dataset:
    """Rows `with_point_shares` as arranged ones again, [K, 3] in pixels; rows without labels stay as they are."""
    if "labels" not in rows.column_names:
        return rows

    def pixels(picture: dict[str, Any], shares: list[list[float]], place: int) -> dict[str, Any]:
        values = np.asarray(shares)
        seen = (values != IGNORED_LABEL).all(axis=1, keepdims=True)
        return {"labels": np.concatenate([np.where(seen, values * size_of(picture), 0.0), seen], axis=1).tolist()}

    return with_new_labels(rows, pixels, TABLE, "Points")


def shares_of(values: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
    """Points [K, 3] in pixels as shares [K, 2].

    Raises:
        ValueError: a seen point is outside the picture, or no number.
    """
    seen = values[:, 2] > 0
    sides = np.array(size, dtype=float)
    inside = ((values[:, :2] >= -ROUNDING) & (values[:, :2] <= sides + ROUNDING)).all(axis=1)  # False for NaN
    inside &= ~(values[:, :2] == -1).all(axis=1)  # how others mark a point that is not there
    if (seen & ~inside).any():
        wrong = int(np.flatnonzero(seen & ~inside)[0])
        raise ValueError(
            f"{name}: key point {wrong} at {values[wrong, :2].tolist()} lies outside its picture of {size[0]} x "
            f"{size[1]} pixels: give pixels of the picture, or `visible` 0 where it is not seen."
        )
    return np.where(seen[:, None], np.clip(values[:, :2], 0, sides) / sides, float(IGNORED_LABEL))


def unknown_points(count: int) -> list[list[float]]:
    """The points of a row where none is known."""
    return [[float(IGNORED_LABEL)] * 2] * count
