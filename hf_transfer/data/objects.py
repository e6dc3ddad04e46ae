"""Pictures with boxes around objects: read from a column `objects`, checked against the pictures, and numbered.

The form is that of `datasets`' image folders: `objects` = {"bbox": [[x, y, width, height], ...], "category": [...]} in
pixels, or a list of {"bbox": [x, y, width, height], "category": ...}; categories are a ClassLabel, words or numbers
from 0 on. A prepared row has a table [m, 5] of class, middle x, middle y, width and height as shares of the picture's
sides, as detectors of transformers are trained on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from torch import Tensor

from hf_transfer.core.task_loss import IGNORED_LABEL, MULTI_LABEL
from hf_transfer.data.class_names import check_names
from hf_transfer.data.columns import format_of
from hf_transfer.data.holes import row_name
from hf_transfer.data.images import only_picture_column, undecoded
from hf_transfer.data.labels import LabelKind
from hf_transfer.data.masks import size_of
from hf_transfer.data.part_tables import TABLE, with_new_labels

OBJECT_COLUMNS = ("objects", "labels", "label")
BOX_KEYS = ("bbox", "boxes", "bboxes")
CATEGORY_KEYS = ("category", "categories", "label", "labels", "category_id", "class_labels")
NO_OBJECT = -1.0
"""The class in the one line of a picture without objects."""
ROUNDING = 1.0
"""Pixels by which a box may leave its picture; it is cut there."""


def object_column(rows: Dataset, column: str | None = None) -> str | None:
    """The column of objects: the one asked for, or one of `OBJECT_COLUMNS` with boxes and categories."""
    for name in OBJECT_COLUMNS if column is None else (column,):
        feature = rows.features.get(name)
        feature = feature if isinstance(feature, dict) else getattr(feature, "feature", None)
        if isinstance(feature, dict) and _key(feature, BOX_KEYS) and _key(feature, CATEGORY_KEYS):
            return name
    return None


def _key(feature: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if key in feature), None)


def arranged_objects(rows: Dataset, role: str, column: str | None = None) -> Dataset:
    """The rows as a column of pictures and `labels` = {"bbox", "category"} where there are any.

    Raises:
        ValueError: none or several columns of pictures, or a column of objects that is not there or has one box a row.
    """
    pictures = only_picture_column(rows, role)
    found = object_column(rows, column)
    if found is None:
        if column is not None:
            raise ValueError(
                f"the {role} rows have no column `{column}` of boxes and categories; they have {rows.features}."
            )
        return rows.select_columns([pictures, *({"domain"} & set(rows.column_names))])
    is_list = not isinstance(rows.features[found], dict)
    feature = rows.features[found].feature if is_list else rows.features[found]
    boxes, categories = _key(feature, BOX_KEYS), _key(feature, CATEGORY_KEYS)
    wanted = {"bbox": feature[boxes], "category": feature[categories]}
    if is_list:
        wanted = {name: List(one) for name, one in wanted.items()}
    elif not hasattr(wanted["category"], "feature"):
        raise ValueError(
            f"column `{found}` of the {role} rows holds one box a row: `{boxes}` and `{categories}` should be lists, "
            "of a box [x, y, width, height] and of a category for every object."
        )
    kept = rows.select_columns([pictures, found, *({"domain"} & set(rows.column_names))])
    if found == "labels" and not is_list and set(feature) == set(wanted):
        return kept
    plain = undecoded(kept.with_format(None), pictures)
    others = {name: one for name, one in plain.features.items() if name != found}

    def pick(cell: Any) -> dict[str, Any]:
        if cell is None:
            return {"labels": None}
        named = ((name, key) for name, key in (("bbox", boxes), ("category", categories)))
        return {"labels": {name: [one[key] for one in cell] if is_list else cell[key] for name, key in named}}

    features = Features({**others, "labels": wanted})
    picked = plain.map(pick, input_columns=found, remove_columns=[found], features=features, desc="Reading boxes")
    return picked.cast_column(pictures, rows.features[pictures]).with_format(**format_of(rows))


def category_names(rows: Dataset) -> tuple[str, ...]:
    """The names of the categories of arranged rows, in the order of their numbers.

    Raises:
        ValueError: numbers below 0, or no object at all where the categories have no names.
    """
    feature = rows.features["labels"]["category"].feature
    if isinstance(feature, ClassLabel):
        return tuple(feature.names)
    found = sorted({one for cell in _cells(rows) for one in (cell or {}).get("category") or ()})
    if not found:
        raise ValueError("no row has an object: the annotations are empty. Check the file, or take other rows.")
    if isinstance(found[0], str):
        return tuple(found)
    if found[0] < 0:
        raise ValueError(f"categories should be names, or numbers from 0 on, got {found[0]}.")
    return tuple(str(number) for number in range(int(found[-1]) + 1))


def check_categories(target: Dataset, kind: LabelKind | None, made_for: Collection[str]) -> None:
    """Raises ValueError where a target's column names other categories than the source has; its boxes are not read."""
    feature = target.features.get("labels")
    names = feature["category"].feature if isinstance(feature, dict) else None
    if isinstance(names, ClassLabel) and kind is not None:
        check_names(kind.class_names or names.names, names.names, made_for)


def _cells(rows: Dataset) -> list[dict[str, Any] | None]:
    return rows.with_format(None).select_columns(["labels"])["labels"][:]


def object_labels(rows: Dataset) -> LabelKind:
    """What the boxes of arranged rows tell apart. Raises as `category_names`."""
    names = category_names(rows)
    return LabelKind(MULTI_LABEL, len(names), names)


def with_tables(rows: Dataset, kind: LabelKind, role: str, source: str = "the training dataset") -> Dataset:
    """Arranged rows whose `labels` are tables [m, 5], numbered as `kind` numbers the categories.

    A picture without objects has one line of the class -1.

    Raises:
        ValueError: a category that `kind` has not, or a box that is not inside its picture; file and row are named.
    """
    names, here = list(kind.class_names or ()), category_names(rows) if _holds_objects(rows) else ()
    unknown = [name for name in here if name not in names]
    if unknown:
        raise ValueError(f"the {role} rows have the categories {unknown[:10]}, and {source} knows {names[:10]} alone.")
    is_word = not isinstance(rows.features["labels"]["category"].feature, ClassLabel)
    numbers = [names.index(name) for name in here]

    def table(picture: dict[str, Any], cell: dict[str, Any] | None, place: int) -> dict[str, Any]:
        name = picture.get("path") or row_name(rows, place)
        boxes = checked_boxes(cell, size_of(picture), f"{name} ({role} rows, row {place})")
        kinds = (cell or {}).get("category") or []
        kinds = [names.index(one) if is_word and isinstance(one, str) else numbers[int(one)] for one in kinds]
        lines = [[float(kind), *box] for kind, box in zip(kinds, boxes.tolist(), strict=True)]
        return {"labels": lines or [[NO_OBJECT, 0.0, 0.0, 0.0, 0.0]]}

    return with_new_labels(rows, table, TABLE, "Boxes")


def with_objects(rows: Dataset, names: Sequence[str]) -> Dataset:
    """Rows `with_tables` as arranged ones again: boxes in pixels and named categories.

    Args:
        rows: pictures and tables; rows without labels stay as they are.
        names: of the categories.
    """
    if "labels" not in rows.column_names:
        return rows
    objects = {"bbox": List(List(Value("float32"))), "category": List(ClassLabel(names=list(names)))}

    def read(picture: dict[str, Any], table: list[list[float]], place: int) -> dict[str, Any]:
        lines = np.asarray([line for line in table if line[0] >= 0]).reshape(-1, 5)
        boxes = lines[:, 1:] * np.tile(size_of(picture), 2)
        boxes[:, :2] -= boxes[:, 2:] / 2
        return {"labels": {"bbox": boxes.tolist(), "category": lines[:, 0].astype(int).tolist()}}

    return with_new_labels(rows, read, objects, "Boxes")


def _holds_objects(rows: Dataset) -> bool:
    return any((cell or {}).get("category") for cell in _cells(rows))


def checked_boxes(cell: dict[str, Any] | None, size: tuple[int, int], name: str) -> np.ndarray:
    """Boxes [m, 4] as middle x, middle y, width and height in shares of the sides of a picture.

    Args:
        cell: {"bbox": [[x, y, width, height], ...], "category": [...]} in pixels.
        size: width and height of the picture.
        name: of the picture and row, for messages.

    Raises:
        ValueError: as many boxes as categories are not there; a box without an area, with a number missing, or outside
            the picture.
    """
    boxes, kinds = (cell or {}).get("bbox") or [], (cell or {}).get("category") or []
    if len(boxes) != len(kinds):
        raise ValueError(f"{name}: {len(boxes)} boxes and {len(kinds)} categories; every box needs one.")
    if not boxes:
        return np.zeros((0, 4))
    if any(len(box) != 4 or None in box for box in boxes):
        raise ValueError(f"{name}: a box is [x, y, width, height] in pixels, got {boxes}.")
    boxes = np.asarray(boxes, dtype=float)
    sides = np.array([*size, *size], dtype=float)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    for box, (left, top, right, bottom) in zip(boxes.tolist(), corners):
        if not np.isfinite(box).all() or box[2] <= 0 or box[3] <= 0:
            raise ValueError(f"{name}: the box {box} has no area: give [x, y, width, height], or leave it out.")
        if min(left, top) < -ROUNDING or right > size[0] + ROUNDING or bottom > size[1] + ROUNDING:
            raise ValueError(
                f"{name}: the box {box} ([x, y, width, height]) leaves its picture of {size[0]} x {size[1]} pixels: "
                "cut it there, or check whether it is given by its corners."
            )
    corners = np.clip(corners, 0, sides) / sides
    return np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)


def shown_categories(rows: Dataset, classes: int) -> np.ndarray:
    """Which categories each row shows, [N, C] of 0 and 1; of rows `with_tables`."""
    shown = np.zeros((len(rows), classes), dtype=np.float32)
    for place, table in enumerate(rows.with_format(None)["labels"]):
        shown[place, [int(line[0]) for line in table if line[0] >= 0]] = 1.0
    return shown


def unknown_table() -> list[list[float]]:
    """The table of a row whose objects are not known."""
    return [[float(IGNORED_LABEL)] * 5]


def padded_objects(tables: Sequence[Tensor]) -> Tensor:
    """Tables [M_i, 5] as one tensor [B, M, 5], filled up with lines without an object."""
    filled = torch.zeros(len(tables), max(1, *(len(one) for one in tables)), 5)
    filled[..., 0] = NO_OBJECT
    for place, table in enumerate(tables):
        filled[place, : len(table)] = table
        if len(table) and (table == IGNORED_LABEL).all():
            filled[place] = IGNORED_LABEL
    return filled


class ObjectCollator:
    """A batch of pictures of one size, and `labels` [B, M, 5] of their objects where rows have them."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch = {"pixel_values": torch.stack([torch.as_tensor(row["pixel_values"]) for row in rows])}
        if "domain" in rows[0]:
            batch["domain"] = torch.tensor([int(row["domain"]) for row in rows])
        if "labels" in rows[0]:
            batch["labels"] = padded_objects([torch.as_tensor(row["labels"]).reshape(-1, 5) for row in rows])
        return batch
