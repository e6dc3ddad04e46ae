"""What a run gives back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


class Measured(dict[str, Any]):
    """The metrics of a saved model on rows by name, and what they are made of.

    Args:
        metrics: name -> value.
        task: that the model was measured on.
        rows: how many.
        per_class: name of a class -> its figures, where the rows have classes.
        confusion: name of a class -> predicted class -> rows.
    """

    def __init__(
        self,
        metrics: Mapping[str, Any],
        task: str,
        rows: int,
        per_class: Mapping[str, Mapping[str, float]] | None = None,
        confusion: Mapping[str, Mapping[str, int]] | None = None,
    ):
        super().__init__(metrics)
        self.task = task
        self.rows = rows
        self.per_class = per_class or {}
        self.confusion = confusion or {}

    def in_full(self) -> dict[str, Any]:
        """Everything, for JSON."""
        told = {"task": self.task, "rows": self.rows, "metrics": dict(self)}
        told |= {"per_class": self.per_class} if self.per_class else {}
        return told | ({"confusion": self.confusion} if self.confusion else {})
