"""What a domain adaptation says beside its metrics: every validator's score, the guard's verdict, pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import EvalPrediction
from transformers.utils import logging

from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.label_shift import LabelShift
from hf_transfer.evaluation.class_shares import ClassShares
from hf_transfer.hub import TableFact
from hf_transfer.runs.arguments import RunArguments
from hf_transfer.runs.diagnostics import Diagnostics
from hf_transfer.runs.guard import SOURCE_ONLY, GuardVerdict, choose
from hf_transfer.training.family_trainers import DomainAdaptationTrainer
from hf_transfer.training.trainer import TransferTrainer

logger = logging.get_logger(__name__)

NOT_COMPARED = (
    "This model was not compared with source only, so that nothing says whether adapting was better than not to: "
    "`guard: true` trains source only first and compares, `source_only: FOLDER` compares with one that is trained."
)

SHARE_COLUMNS = ["class", "source", "target, estimated", "standard error", "weight"]


class DomainReport:
    """Made before the training, asked afterwards; of a run without two domains it says nothing.

    Args:
        trainer: ready to train.
        run_args: what the run asks for.
        reference: folder of the source-only model that the guard compares with, if there is one.
        shift: class shares of both domains, where they were estimated.
    """

    def __init__(
        self,
        trainer: TransferTrainer,
        run_args: RunArguments,
        reference: Path | None,
        shift: LabelShift | None = None,
    ):
        self.trainer = trainer
        self.has_domains = isinstance(trainer, DomainAdaptationTrainer)
        self.reference = reference
        self.shift = shift
        self.keep_adapted = run_args.keep_adapted
        self.verdict: GuardVerdict | None = None
        self.scores: dict[str, float] = {}
        self.class_shares: dict[str, list[float]] = {}
        self.warnings: list[str] = []
        wanted = self.has_domains and run_args.diagnostics
        self.diagnostics = Diagnostics(trainer, run_args.embedding, reference is not None) if wanted else None

    def conclude(self) -> None:
        """Right after the training: leave the trainer with the model that is kept, and score it by every validator."""
        if self.has_domains:
            self.trainer.keeps_outputs = True  # one pass over the rows serves validators, evaluation and pictures
        if self.reference is not None:
            seen = self.diagnostics.see_reference if self.diagnostics is not None else None
            self.verdict = choose(self.trainer, self.reference, self.keep_adapted, seen)
        if self.has_domains:
            outputs = self.trainer.validation_outputs()
            scores = self.trainer.validate_by_all(outputs)
            self.scores = {name: value for name, value in scores.items() if math.isfinite(value)}
            self.warn(outputs)

    def warn(self, outputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        """Say what cannot be told from the scores: whether adapting was better than not to, and odd class shares."""
        model = self.trainer.transfer_model
        if self.verdict is None and model.objectives:
            self.warnings.append(NOT_COMPARED)
        if self.trainer.problem_type == SINGLE_LABEL:
            names = class_names(self.trainer)
            shares = ClassShares.of(*outputs[1:])
            self.class_shares = dict(
                zip(names, ([p, q] for p, q in zip(shares.source.tolist(), shares.target.tolist())))
            )
            expected = None if self.trainer.label_shift is None else self.trainer.label_shift.target
            self.warnings += shares.warnings(names, {one.label_space for one in model.objectives.values()}, expected)
        for warning in self.warnings:
            logger.warning(warning)

    def results(self) -> dict[str, Any]:
        """What joins the metrics in `results.json`."""
        found: dict[str, Any] = {"validators": self.scores} if self.scores else {}
        if self.class_shares:
            found["class_shares"] = {"of": ["source labels", "target predictions"], **self.class_shares}
        if self.shift is not None:
            found["label_shift"] = self.shift.to_dict(class_names(self.trainer))
            found["label_shift"]["is_corrected"] = self.trainer.label_shift is not None
        if self.warnings:
            found["warnings"] = self.warnings
        if self.verdict is not None:
            found |= {"kept": self.verdict.kept, "guard": self.verdict.to_dict()}
        return found

    def card_facts(self, test: EvalPrediction | None) -> dict[str, Any]:
        """Keywords of `RunFacts`: tables and pictures; no methods where the model that is kept was trained by none.

        Args:
            test: outputs and labels of the test rows, where there are any.
        """
        tables = [] if self.verdict is None else [self.verdict.table()]
        if self.shift is not None:
            tables.append(shares_table(self.shift, class_names(self.trainer), self.trainer.label_shift is not None))
        if self.scores:
            rows = [[name, score] for name, score in self.scores.items()]
            chosen = self.trainer.args.validator
            caption = f"Higher is better. `{chosen}` is the run's validator; none reads target labels."
            caption = " ".join([caption, *self.warnings])
            tables.append(TableFact("Label-free validators", ["validator", "score"], rows, caption))
        facts: dict[str, Any] = {"tables": tables}
        if self.diagnostics is not None:
            facts["plots"] = self.diagnostics.draw(test)
        if self.verdict is not None and self.verdict.kept == SOURCE_ONLY:
            facts |= {"methods": [], "summary": "Source only: " + self.verdict.in_words()}
        return facts


def class_names(trainer: DomainAdaptationTrainer) -> list[str]:
    """Of the model's classes, in their order."""
    config = trainer.transfer_model.config
    return [str(config.id2label[index]) for index in range(config.num_labels)]


def shares_table(shift: LabelShift, names: list[str], is_corrected: bool) -> TableFact:
    """Class shares of both domains, for the card.

    Args:
        shift: that was estimated.
        names: of the classes.
        is_corrected: whether the training uses it.
    """
    columns = (shift.source, shift.target, shift.errors, shift.weights)
    rows = [[name, *row] for name, *row in zip(names, *(values.tolist() for values in columns))]
    use = "The training does not use them (`label_shift: ignore`)."
    if is_corrected:
        use = "Source rows are weighted by class, and validators ask for the estimated shares."
    caption = (
        f"From {shift.source_rows} held-out source rows and {shift.target_rows} target rows; no target label is read."
    )
    return TableFact("Class shares", SHARE_COLUMNS, rows, " ".join([caption, use, *shift.warnings(names)]))
