"""Reading of a json file that holds one object, such as a COCO or a SQuAD file."""

from __future__ import annotations

import json
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
