"""Finished rows of a ranking on disk, so that an interrupted run continues where it stopped.

One JSON line a row, keyed by the model, its revision, the dataset's fingerprint and the settings: what changed is
scored again, what did not is read. Only scored rows are kept; a model that failed gets another chance. Processes that
run models of their own write files of their own, `rows-P.jsonl`, which the main one joins at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState

from hf_transfer.ranking.ranking import RankingRow

FILE_NAME, OTHERS = "rows.jsonl", "rows-{}.jsonl"


def journal_files(folder: Path) -> list[Path]:
    """What the processes of earlier runs wrote into a folder, the main one's first."""
    main = folder / FILE_NAME
    return [path for path in (main, *sorted(folder.glob(OTHERS.format("*")))) if path.is_file()]


class Journal:
    """Rows by key, in `directory`/rows.jsonl; without a directory nothing is kept.

    Args:
        directory: made if need be.
        facts: what all rows of the run depend on.
        resume: False removes what earlier runs left there.
    """

    def __init__(self, directory: str | os.PathLike | None, facts: Mapping[str, Any], resume: bool = True):
        self.facts = dict(facts)
        self.folder = None if directory is None else Path(directory)
        self.rows: dict[str, RankingRow] = {}
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in journal_files(self.folder):
            if resume:
                for line in path.read_text(encoding="utf-8").splitlines():
                    self._read(line)
            elif PartialState().is_main_process:
                path.unlink(missing_ok=True)

    @property
    def path(self) -> Path | None:
        """The file that this process writes."""
        process = PartialState().process_index
        return None if self.folder is None else self.folder / (OTHERS.format(process) if process else FILE_NAME)

    def find(self, name: str, revision: str | None) -> RankingRow | None:
        """The finished row of a model at a revision."""
        return None if revision is None else self.rows.get(self._key(name, revision))

    def add(self, row: RankingRow) -> None:
        """Keep a scored row; the file is on disk when this returns."""
        if row.score is None or row.revision is None:
            return
        key = self._key(row.model, row.revision)
        self.rows[key] = row
        if self.path is not None:
            self._append(json.dumps({"key": key, "row": asdict(row)}) + "\n")

    def join(self) -> None:
        """Move what other processes wrote into the main one's file, once they have finished."""
        for path in journal_files(self.folder) if self.folder is not None else []:
            if path != self.path:
                self._append(path.read_text(encoding="utf-8"))
                path.unlink()

    def _append(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            # A new line first: a run that was killed may have left half a line behind.
            file.write("\n" + text)
            file.flush()
            os.fsync(file.fileno())

    def _key(self, name: str, revision: str) -> str:
        text = json.dumps([name, revision, self.facts], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self.rows[entry["key"]] = RankingRow.from_dict(entry["row"])
        except (ValueError, KeyError, TypeError):
            # A run that was killed while writing leaves half a line; its row is scored again.
            return
