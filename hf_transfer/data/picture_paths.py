"""Tables that name pictures: a column of paths becomes a column of pictures."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, Image, Value, concatenate_datasets
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
        if not (isinstance(feature, Value) and feature.dtype in TEXT):
            continue
        cells = rows.with_format(None)[column][:]
        if not all(isinstance(cell, str) and cell.lower().endswith(SUFFIXES) for cell in cells):
            continue
        paths = [folder / cell for cell in cells]
        missing = next((place for place, path in enumerate(paths) if not path.is_file()), None)
        if missing is not None:
            raise ValueError(
                f"{row_name(rows, missing, column)} names the picture `{cells[missing]}`, and there is no file "
                f"`{paths[missing]}`: paths start where the table lies"
            )
        logger.warning(f"column `{column}` names {len(cells)} pictures, which are read.")
        pictures = Dataset.from_dict({column: [str(path) for path in paths]}).cast_column(column, Image())
        columns, rest = rows.column_names, rows.remove_columns(column)
        rows = (
            concatenate_datasets([rest, pictures], axis=1).select_columns(columns) if rest.column_names else pictures
        )
    return rows
