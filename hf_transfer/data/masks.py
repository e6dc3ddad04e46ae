"""Pictures whose every pixel has a class: masks as files or columns of pictures, read, checked and numbered.

A mask is a picture of one channel whose values are class numbers: 8 or 16 bits of grey, or a palette (mode P), whose
places count and whose colours do not. `IGNORED_VALUE` marks pixels without a class.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Image
from PIL import Image as PILImage
from transformers.utils import logging

from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.data.class_names import check_names
from hf_transfer.data.columns import format_of
from hf_transfer.data.holes import row_name
from hf_transfer.data.images import undecoded
from hf_transfer.data.labels import LabelKind

logger = logging.get_logger(__name__)

MASK_COLUMNS = ("labels", "label", "mask", "masks", "annotation", "annotations", "segmentation", "label_map")
CLASSES_COLUMN = "classes"
"""A list of ClassLabel: the classes that the mask of the row shows. Its names are those of the mask's numbers."""
IGNORED_VALUE = 255
LARGEST = 65535
"""That a mask of 16 bits can hold."""
MOST_CLASSES = 32767
"""That maps of labels, which are stored in 16 bits, tell apart."""
SPARSE = 10
"""More numbers without a pixel than so many for each number with one are no classes."""
LOSSY = ("JPEG", "MPO", "JPEG2000")
"""Formats that change numbers a little, and so make other classes of them."""
MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
TURNED = (5, 6, 7, 8)
"""Values of a photograph's orientation that exchange its sides."""
ORIENTATION = 0x0112


def mask_column(rows: Dataset, column: str | None = None) -> str | None:
    """The column that holds masks: the one asked for, or one of `MASK_COLUMNS` that holds pictures."""
    names = MASK_COLUMNS if column is None else (column,)
    return next((name for name in names if isinstance(rows.features.get(name), Image)), None)


def arranged_masks(rows: Dataset, role: str, column: str | None = None) -> Dataset:
    """The rows as a column of pictures, `labels` with masks where there are any, and `CLASSES_COLUMN`.

    Args:
        rows: with one column of pictures beside that of masks.
        role: what they are for, for messages.
        column: which holds the masks, where its name is no usual one.

    Raises:
        ValueError: none or several columns of pictures, or a column of masks that is not there.
    """
    found = mask_column(rows, column)
    if column is not None and found is None:
        raise ValueError(f"the {role} rows have no column `{column}` of pictures; they have {rows.features}.")
    images = [name for name, feature in rows.features.items() if isinstance(feature, Image) and name != found]
    if len(images) != 1:
        raise ValueError(
            f"the {role} rows need one column of pictures beside the masks, got {images} in {rows.column_names}: "
            f"name that of the masks by `label_column`, or call it one of {list(MASK_COLUMNS)}."
        )
    kept = [images[0], *([found] if found else []), *({CLASSES_COLUMN, "domain"} & set(rows.column_names))]
    rows = rows.select_columns(kept)
    return rows.rename_column(found, "labels") if found not in (None, "labels") else rows


def named_classes(rows: Dataset, id2label: Mapping[Any, str] | str | None = None) -> tuple[str, ...] | None:
    """The names of the mask's numbers 0, 1, 2, ...: those given, or those of `CLASSES_COLUMN`; None without any.

    Args:
        rows: arranged.
        id2label: number -> name, or the path of a JSON file with it.

    Raises:
        ValueError: the file cannot be read, or the numbers are not 0, 1, 2, ....
    """
    if id2label is None:
        feature = getattr(rows.features.get(CLASSES_COLUMN), "feature", None)
        return tuple(feature.names) if isinstance(feature, ClassLabel) else None
    if isinstance(id2label, str):
        try:
            id2label = json.loads(Path(id2label).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"`id2label` should be a mapping or a JSON file with one: {error}") from error
    try:
        names = {int(number): str(name) for number, name in id2label.items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(f"`id2label` should map class numbers to names, got {id2label!r}.") from error
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"`id2label` should name the classes 0 to {len(names) - 1}, got the numbers {sorted(names)}.")
    return tuple(names[number] for number in range(len(names)))


def read_mask_labels(
    rows: Dataset, role: str, id2label: Mapping[Any, str] | str | None = None
) -> tuple[Dataset, LabelKind]:
    """Arranged rows and what their masks tell apart; without names the numbers found in the masks are the classes.

    Raises:
        ValueError: as `named_classes`; fewer than two classes, more than `MOST_CLASSES`, a mask that cannot be read,
            masks of 0 and 255 or without any class, or numbers that leave far more out than they use.
    """
    names, found = named_classes(rows, id2label), set()
    for place, cell in enumerate(undecoded(rows, "labels")["labels"]):
        found |= set(np.unique(read_mask(cell, mask_name(rows, place, cell))).tolist())
    if found == {0, IGNORED_VALUE}:
        raise ValueError(
            f"the masks of the {role} rows hold 0 and {IGNORED_VALUE} alone, and {IGNORED_VALUE} marks pixels without "
            "a class: where it is a class, save 1 in its place."
        )
    found -= {IGNORED_VALUE}
    if names is not None and not found:
        raise ValueError(
            f"no pixel of the {role} rows has a class: their masks hold {IGNORED_VALUE} or `ignore_index` alone, and "
            "there is nothing to learn from. Check the masks, or take other rows."
        )
    if names is None:
        names = tuple(str(number) for number in range(max(found, default=-1) + 1))
        if len(names) - len(found) > SPARSE * len(found):
            raise ValueError(
                f"the masks of the {role} rows hold {len(found)} numbers up to {max(found)}, which would be "
                f"{len(names)} classes: mark pixels without a class by `ignore_index: {max(found)}`, save classes as "
                "0, 1, 2, ..., or name all of them by `id2label`."
            )
    if len(names) > MOST_CLASSES:
        raise ValueError(f"masks tell at most {MOST_CLASSES} classes apart here, and `id2label` has {len(names)}.")
    if len(names) < 2:
        raise ValueError(f"the masks of the {role} rows should tell at least two classes apart, got {list(names)}.")
    missing = [name for number, name in enumerate(names) if number not in found]
    if missing:
        logger.warning(f"no pixel of the {role} rows is of {missing[:10]}: a model cannot learn these there.")
    return rows, LabelKind(SINGLE_LABEL, len(names), names)


def masks_as(rows: Dataset, kind: LabelKind, role: str, source: str) -> Dataset:
    """Arranged rows whose masks are numbered as `kind` numbers the classes, by name where both have names.

    Raises:
        ValueError: a name that `kind` has not.
    """
    here, names = named_classes(rows), list(kind.class_names or ())
    if here is None or list(here) == names:
        return rows
    unknown = [name for name in here if name not in names]
    if unknown:
        raise ValueError(
            f"the masks of the {role} rows have the classes {unknown[:10]}, which {source} has not ({names[:10]}): "
            "call them as there, leave them out, or mark their pixels as ignored."
        )
    numbers = np.arange(LARGEST + 1)
    numbers[: len(here)] = [names.index(name) for name in here]
    return renumbered(rows, numbers).remove_columns(CLASSES_COLUMN)


def without_classes(rows: Dataset) -> Dataset:
    """Arranged rows without the names of their classes."""
    return rows.remove_columns(CLASSES_COLUMN) if CLASSES_COLUMN in rows.column_names else rows


def check_renamed(rows: Dataset, id2label: Mapping[Any, str] | str | None) -> None:
    """Raises ValueError where `id2label` and the rows themselves give the same names to other numbers.

    Args:
        rows: arranged, for training.
        id2label: as of `named_classes`.
    """
    own, told = named_classes(rows), named_classes(rows, id2label)
    if own is not None and own != told and set(own) & set(told or ()):
        moved = [name for name in own if name in told and told.index(name) != own.index(name)]
        if moved:
            raise ValueError(
                f"`id2label` says that {told.index(moved[0])} is {moved[0]!r}, and the column `{CLASSES_COLUMN}` of "
                f"the training rows that {own.index(moved[0])} is: leave `id2label` out, or mend it."
            )


def ignored_number(rows: Dataset, ignored: int, id2label: Mapping[Any, str] | str | None) -> int:
    """The number that means no class in rows which number their classes by other names than the training rows may do.

    Args:
        rows: arranged, to measure on or of a target.
        ignored: that number in the training masks.
        id2label: names of the classes of the training masks, as of `named_classes`.

    Raises:
        ValueError: the number is one of a class of these rows, and its name in the training masks is not known.
    """
    own, names = named_classes(rows), named_classes(rows, id2label) if id2label is not None else None
    if own is None or ignored == IGNORED_VALUE or own == names:
        return ignored
    if names is not None and ignored < len(names):
        return own.index(names[ignored]) if names[ignored] in own else IGNORED_VALUE
    if ignored < len(own):
        raise ValueError(
            f"`ignore_index: {ignored}` is a class of the training masks without a name, and is {own[ignored]!r} in "
            "other rows: name the classes of the training masks by `id2label`."
        )
    return ignored


def with_ignored_value(rows: Dataset, ignored: int, id2label: Mapping[Any, str] | str | None = None) -> Dataset:
    """Arranged rows whose masks mark pixels without a class by `IGNORED_VALUE`, where another number did.

    Args:
        rows: arranged.
        ignored: that number.
        id2label: as of `named_classes`.

    Raises:
        ValueError: the number is none that a mask can hold; or it leaves `IGNORED_VALUE` to a class.
    """
    if ignored == IGNORED_VALUE:
        return rows
    if not 0 <= ignored <= LARGEST:
        raise ValueError(f"`ignore_index` should be a value of a mask, from 0 to {LARGEST}, got {ignored}.")
    if len(named_classes(rows, id2label) or ()) > IGNORED_VALUE:
        raise ValueError(
            f"pixels of class {IGNORED_VALUE} would be left out, as {IGNORED_VALUE} marks pixels without a class: "
            f"with more than {IGNORED_VALUE} classes save masks in which {IGNORED_VALUE} means that, and leave "
            "`ignore_index` out."
        )
    numbers = np.arange(LARGEST + 1)
    numbers[ignored] = IGNORED_VALUE
    return renumbered(rows, numbers)


def renumbered(rows: Dataset, numbers: np.ndarray) -> Dataset:
    """Arranged rows with other numbers in their masks: `numbers` [LARGEST + 1] by the old ones."""
    plain = undecoded(rows.with_format(None), "labels")

    def renumber(cell: Any, place: int) -> dict[str, Any]:
        mask = PILImage.fromarray(numbers[read_mask(cell, mask_name(rows, place, cell))].astype(np.uint16))
        stored = io.BytesIO()
        mask.save(stored, format="PNG")
        return {"labels": {"bytes": stored.getvalue(), "path": cell.get("path")}}

    changed = plain.map(renumber, input_columns="labels", with_indices=True, desc="Numbering classes")
    return changed.cast_column("labels", Image()).with_format(**format_of(rows))


def check_class_names(target: Dataset, kind: LabelKind | None, made_for: Collection[str]) -> None:
    """Raises ValueError where the masks of a target name other classes than those of the source, as `check_names`."""
    names = named_classes(target)
    if names is not None and kind is not None:
        check_names(kind.class_names or names, names, made_for)


def mask_name(rows: Dataset, place: int, cell: Any) -> str:
    """What a message calls a mask: its file, or its row."""
    return (cell or {}).get("path") or row_name(rows, place, "labels")


def read_mask(cell: Any, name: str) -> np.ndarray:
    """The numbers [H, W] of a mask as a column of undecoded pictures holds it.

    Raises:
        ValueError: no mask, a damaged one, a picture of colours, a format that changes numbers, or numbers that no
            class has; `name` is in the message.
    """
    if cell is None:
        raise ValueError(f"{name} has no mask: leave the row out.")
    try:
        picture = opened(cell)
        mode, values = picture.mode, np.asarray(picture)
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise ValueError(f"cannot read the mask {name}: {error}. Mend it, or leave it out.") from error
    if mode not in MODES:
        raise ValueError(
            f"the mask {name} is a picture of colours (mode {mode}): save the number of each pixel's class, as 8 or "
            "16 bits of grey or with a palette."
        )
    if picture.format in LOSSY:
        raise ValueError(
            f"the mask {name} is a {picture.format} picture, which changes the numbers of classes a little: save "
            "masks as PNG, from where they were made."
        )
    if values.size and not 0 <= values.min() <= values.max() <= LARGEST:
        raise ValueError(
            f"the mask {name} holds the numbers {values.min()} to {values.max()}, and classes are 0 to {LARGEST}: "
            f"save another number in place of these, {IGNORED_VALUE} for pixels without a class."
        )
    return values.astype(np.int64)


def opened(cell: Mapping[str, Any]) -> PILImage.Image:
    """The picture of a cell, not yet decoded."""
    return PILImage.open(io.BytesIO(cell["bytes"]) if cell.get("bytes") is not None else cell["path"])


def size_of(cell: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height of a picture as it is shown, without decoding it."""
    picture = opened(cell)
    turned = picture.getexif().get(ORIENTATION) in TURNED
    return picture.size[::-1] if turned else picture.size


def check_mask(mask: np.ndarray, image: Any, name: str, classes: int) -> None:
    """A mask is as large as its picture, and holds classes of the model.

    Args:
        mask: [H, W].
        image: cell of the picture.
        name: of the mask, for messages.
        classes: how many the model tells apart.

    Raises:
        ValueError: it is not so.
    """
    width, height = size_of(image)
    if mask.shape != (height, width):
        raise ValueError(
            f"the mask {name} has {mask.shape[1]} x {mask.shape[0]} pixels and its picture {width} x {height}: they "
            "should be of the same size, pixel by pixel."
        )
    outside = np.unique(mask[(mask >= classes) & (mask != IGNORED_VALUE)])
    if len(outside):
        raise ValueError(
            f"the mask {name} holds the classes {outside[:10].tolist()}, and the model knows 0 to {classes - 1}: "
            f"name all by `id2label`, or mark pixels without a class by {IGNORED_VALUE} or by `ignore_index`."
        )


def map_at(mask: np.ndarray, height: int, width: int, ignored: int) -> bytes:
    """A mask at another size, each place with the class at its middle, as the bytes of int16.

    Args:
        mask: [H, W].
        height, width: of the result.
        ignored: what marks pixels without a class in the result.
    """
    rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip((height, width), mask.shape))
    values = mask[rows][:, columns]
    return np.where(values == IGNORED_VALUE, ignored, values).astype(np.int16).tobytes()


def shown_classes(rows: Dataset, classes: int) -> np.ndarray:
    """Which classes each mask shows, [N, C] of 0 and 1; of arranged rows."""
    shown = np.zeros((len(rows), classes), dtype=np.float32)
    for place, cell in enumerate(undecoded(rows, "labels")["labels"]):
        values = np.unique(read_mask(cell, mask_name(rows, place, cell)))
        shown[place, values[(values != IGNORED_VALUE) & (values < classes)]] = 1.0
    return shown
