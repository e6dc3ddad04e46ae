"""Tables that name pictures or sounds: a column of paths becomes a column of them."""

from __future__ import annotations

from pathlib import Path

from datasets import Audio, Dataset, Image, Value
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from transformers.utils import logging

from hf_transfer.data.holes import row_name
from hf_transfer.data.sounds import SOUND_SUFFIXES

logger = logging.get_logger(__name__)

SUFFIXES = tuple(ImageFolder.EXTENSIONS)
TEXT = ("string", "large_string")


def with_pictures(rows: Dataset, folder: Path) -> Dataset:
    """The rows with their columns of paths as pictures or sounds: those in which every cell ends like such a file.

    Args:
        rows: of a table.
        folder: in which its file lies, and from which relative paths start.

    Raises:
        ValueError: a file is not there; its row is named.
    """
    rows = _with_files(rows, folder, SUFFIXES, "picture", Image())
    return _with_files(rows, folder, SOUND_SUFFIXES, "sound", Audio(decode=False))


def _with_files(rows: Dataset, folder: Path, suffixes: tuple[str, ...], what: str, made: Image | Audio) -> Dataset:
    for column, feature in rows.features.items():
        is_text = isinstance(feature, Value) and feature.dtype in TEXT
        if not is_text or not is_file(rows[0][column], suffixes):  # one cell tells most columns of text apart
            continue
        cells = rows[column][:]
        if not all(is_file(cell, suffixes) for cell in cells):
            continue
        missing = next((index for index, cell in enumerate(cells) if not (folder / cell).is_file()), None)
        if missing is not None:
            raise ValueError(
                f"{row_name(rows, missing, column)} names the {what} `{cells[missing]}`, and there is no file "
                f"`{folder / cells[missing]}`: paths start where the table lies"
            )
        logger.warning(f"column `{column}` names {len(cells)} {what}s, which are read.")
        rows = rows.map(
            lambda cell, name: {name: str(folder / cell)}, input_columns=column, fn_kwargs={"name": column}
        )
        rows = rows.cast_column(column, Value("string")).cast_column(column, made)  # no other text becomes a sound
    return rows


def is_file(cell: str | None, suffixes: tuple[str, ...]) -> bool:
    """Whether a cell ends like the name of a file with one of these suffixes."""
    return cell is not None and cell.lower().endswith(suffixes)
