"""What a run gives back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hf_transfer.runs.guard import GuardVerdict


class Result(dict[str, float]):
    """The metrics of the test rows by name, and what the run left.

    Args:
        metrics: name -> value.
        folder: of the saved model.
        verdict: of the guard against negative transfer, where the run had one.
    """

    def __init__(self, metrics: Mapping[str, float], folder: Path, verdict: GuardVerdict | None = None):
        super().__init__(metrics)
        self.folder = folder
        self.verdict = verdict
