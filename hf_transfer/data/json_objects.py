"""Reading of a json file that holds one object, such as a COCO or a SQuAD file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any] | None:
    """The object; None where the file is a list or has a row on each line."""
    with path.open(encoding="utf-8-sig") as file:
        if file.read(1) != "{":
            return None
        file.seek(0)
        try:
            return json.load(file)
        except json.JSONDecodeError:
            return None


def check_rows(found: Mapping[str, Any]) -> None:
    """Refuse an object that would be read as one row, though it holds many.

    Raises:
        ValueError: it is one object around a list of rows, or has a column under each key.
    """
    if found and all(
        isinstance(column, dict) and column and all(map(str.isdigit, column)) for column in found.values()
    ):
        raise ValueError(
            'it has a column under each key, as pandas writes it: write the rows, by `to_json(..., orient="records")`'
        )
    for key, rows in found.items():
        if isinstance(rows, list) and len(rows) > 1 and all(isinstance(row, dict) for row in rows):
            raise ValueError(
                f"it is one object, whose `{key}` holds {len(rows)} rows: write that list alone, or each row on a "
                "line of its own (.jsonl)"
            )
