"""What a domain adaptation says beside its metrics: every validator's score, the guard's verdict, pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_transfer.family_trainers import DomainAdaptationTrainer
from hf_transfer.hub import TableFact
from hf_transfer.runs.arguments import RunArguments
from hf_transfer.runs.diagnostics import Diagnostics
from hf_transfer.runs.guard import SOURCE_ONLY, GuardVerdict, choose
from hf_transfer.trainer import TransferTrainer


class DomainReport:
    """Made before the training, asked afterwards; of a run without two domains it says nothing.

    Args:
        trainer: ready to train.
        run_args: what the run asks for.
        reference: folder of the source-only model that the guard compares with, if there is one.
    """

    def __init__(self, trainer: TransferTrainer, run_args: RunArguments, reference: Path | None):
        self.trainer = trainer
        self.has_domains = isinstance(trainer, DomainAdaptationTrainer)
        self.reference = reference
        self.keep_adapted = run_args.keep_adapted
        self.verdict: GuardVerdict | None = None
        self.scores: dict[str, float] = {}
        wanted = self.has_domains and run_args.diagnostics
        self.diagnostics = Diagnostics(trainer, run_args.embedding) if wanted else None

    def conclude(self) -> None:
        """Right after the training: leave the trainer with the model that is kept, and score it by every validator."""
        if self.reference is not None:
            self.verdict = choose(self.trainer, self.reference, self.keep_adapted)
        if self.has_domains:
            scores = self.trainer.validate_by_all()
            self.scores = {name: value for name, value in scores.items() if math.isfinite(value)}

    def results(self) -> dict[str, Any]:
        """What joins the metrics in `results.json`."""
        found: dict[str, Any] = {"validators": self.scores} if self.scores else {}
        if self.verdict is not None:
            found |= {"kept": self.verdict.kept, "guard": self.verdict.to_dict()}
        return found

    def card_facts(self, test: Dataset | None) -> dict[str, Any]:
        """Keywords of `RunFacts`: tables and pictures; no methods where the model that is kept was trained by none."""
        tables = [] if self.verdict is None else [self.verdict.table()]
        if self.scores:
            rows = [[name, score] for name, score in self.scores.items()]
            chosen = self.trainer.args.validator
            caption = f"Higher is better. `{chosen}` is the run's validator; none reads target labels."
            tables.append(TableFact("Label-free validators", ["validator", "score"], rows, caption))
        facts: dict[str, Any] = {"tables": tables}
        if self.diagnostics is not None:
            facts["plots"] = self.diagnostics.draw(test)
        if self.verdict is not None and self.verdict.kept == SOURCE_ONLY:
            facts |= {"methods": [], "summary": "Source only: " + self.verdict.in_words()}
        return facts
