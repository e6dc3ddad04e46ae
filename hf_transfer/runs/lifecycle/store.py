"""The finished pieces of a lifecycle on disk, each under a hash of everything that it depends on.

    state/PIECE-KEY.json   {"piece", "depends", "root", "result"}, written in one step; what is there is not done again
    PIECE-KEY/             the folder of a piece that leaves one
    key = the first 12 digits of the SHA-256 of `depends`; `root` is the output folder as it was named then

A piece whose dependencies changed has another key: it is done again, and what changed is told. The main process reads
and writes; the others get what it found, so that all of them go the same way.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

STATE_FOLDER = "state"


class Store:
    """The pieces in an output folder.

    Args:
        folder: made if need be.

    Raises:
        FileExistsError: it holds other things than a lifecycle.
    """

    def __init__(self, folder: str | Path):
        self.root = Path(folder)
        self.state = self.root / STATE_FOLDER
        check_is_ours(self.root)
        if PartialState().is_main_process:
            self.state.mkdir(parents=True, exist_ok=True)
        PartialState().wait_for_everyone()

    def find(self, piece: str, depends: Mapping[str, Any]) -> Any:
        """The result of a piece, or None where it is not done."""
        path, found = self._path(piece, depends), None
        if PartialState().is_main_process and path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            found = placed(record["result"], record.get("root", str(self.root)), str(self.root))
        return from_main(found)

    def keep(self, piece: str, depends: Mapping[str, Any], result: Any) -> Any:
        """Write the result of a piece, on disk when this returns, and give it as JSON gives it back."""
        record = {"piece": piece, "depends": depends, "root": str(self.root), "result": result}
        text = json.dumps(record, indent=1, default=str) + "\n"
        if PartialState().is_main_process:
            write_whole(self._path(piece, depends), text)
        PartialState().wait_for_everyone()
        return json.loads(text)["result"]

    def folder(self, piece: str, depends: Mapping[str, Any]) -> Path:
        """Where a piece keeps its files."""
        return self.root / f"{slug(piece)}-{key_of(depends)}"

    def changes(self, piece: str, depends: Mapping[str, Any]) -> list[str]:
        """What differs from the last time that this piece was done; nothing where it is new."""
        found = None
        if PartialState().is_main_process:
            earlier = sorted(self.state.glob(f"{slug(piece)}-*.json"), key=lambda path: path.stat().st_mtime)
            records = [json.loads(path.read_text(encoding="utf-8")) for path in earlier]
            records = [record for record in records if record["piece"] == piece]
            found = records[-1]["depends"] if records else None
        found = from_main(found)
        return [] if found is None else differences(found, json.loads(json.dumps(depends, default=str)))

    def remove_if_empty(self) -> None:
        """Remove a folder in which no piece was finished."""
        if PartialState().is_main_process and not any(self.state.glob("*.json")):
            shutil.rmtree(self.root, ignore_errors=True)

    def _path(self, piece: str, depends: Mapping[str, Any]) -> Path:
        return self.state / f"{slug(piece)}-{key_of(depends)}.json"


def check_is_ours(folder: Path) -> None:
    """Raises FileExistsError for a folder that holds other things than a lifecycle."""
    if folder.is_file():
        raise FileExistsError(f"`{folder}` is a file: choose another output folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STATE_FOLDER).is_dir():
        raise FileExistsError(f"`{folder}` is not empty and holds no lifecycle: choose another output folder.")


def from_main(value: Any) -> Any:
    """What the main process has, on every process."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


def placed(value: Any, old: str, new: str) -> Any:
    """A result with its paths below the folder `old` below `new`: it was moved, or is named from elsewhere."""
    if old == new:
        return value
    if isinstance(value, Mapping):
        return {placed(key, old, new): placed(one, old, new) for key, one in value.items()}
    if isinstance(value, list):
        return [placed(one, old, new) for one in value]
    is_below = isinstance(value, str) and f"{value}/".startswith(f"{old}/")
    return f"{new}{value[len(old) :]}" if is_below else value


def key_of(depends: Mapping[str, Any]) -> str:
    """Twelve digits that stand for a mapping."""
    return hashlib.sha256(json.dumps(depends, sort_keys=True, default=str).encode()).hexdigest()[:12]


def slug(name: str) -> str:
    """A name as a part of a file's name."""
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")[:60]


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step: a kill leaves the old one or the new one."""
    draft = path.with_name(f".{path.name}.saving")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """What changed between two nested mappings, as phrases such as "learning_rate 0.001 -> 0.01"."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for key in [*old, *(key for key in new if key not in old)]:
            found += differences(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
        return found
    return [] if old == new else [f"{name} {old} -> {new}"]
