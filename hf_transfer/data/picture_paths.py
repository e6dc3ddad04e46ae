"""Tables that name pictures: a column of paths becomes a column of pictures."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, Image, Value
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from transformers.utils import logging

from hf_transfer.data.holes import row_name

logger = logging.get_logger(__name__)

SUFFIXES = tuple(ImageFolder.EXTENSIONS)
TEXT = ("string", "large_string")


def with_pictures(rows: Dataset, folder: Path) -> Dataset:
    """The rows with their columns of paths as pictures: those in which every cell ends like a picture's file.

    Args:
        rows: of a table.
        folder: in which its file lies, and from which relative paths start.

    Raises:
        ValueError: a picture is not there; its row is named.
    """
    for column, feature in rows.features.items():
        is_text = isinstance(feature, Value) and feature.dtype in TEXT
        if not is_text or not is_picture(rows[0][column]):  # one cell tells most columns of text apart
            continue
        cells = rows[column][:]
        if not all(map(is_picture, cells)):
            continue
        missing = next((index for index, cell in enumerate(cells) if not (folder / cell).is_file()), None)
        if missing is not None:
            raise ValueError(
                f"{row_name(rows, missing, column)} names the picture `{cells[missing]}`, and there is no file "
                f"`{folder / cells[missing]}`: paths start where the table lies"
            )
        logger.warning(f"column `{column}` names {len(cells)} pictures, which are read.")
        rows = rows.map(
            lambda cell, name: {name: str(folder / cell)}, input_columns=column, fn_kwargs={"name": column}
        )
        rows = rows.cast_column(column, Image())
    return rows


def is_picture(cell: str | None) -> bool:
    """Whether a cell ends like the name of a picture's file."""
    return cell is not None and cell.lower().endswith(SUFFIXES)
