"""The guard against negative transfer: the adapted model is kept only where the validator prefers it to source only.

Both are scored by the validator of the run, on the same unlabelled rows. Source only is a saved run (`source_only:
FOLDER`), or the same run without objectives, trained first (`guard: true`). With `keep_adapted: true` the scores are
told and the adapted model is kept whatever they say.

    keep the adapted model  if  validator(adapted) >= validator(source only),   else source only
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.evaluation.class_shares import FAR, ClassShares, distance_of_shares
from hf_transfer.hub import TableFact
from hf_transfer.training.family_trainers import DomainAdaptationTrainer

logger = logging.get_logger(__name__)

ADAPTED, SOURCE_ONLY = "adapted", "source only"


@dataclass(frozen=True)
class GuardVerdict:
    """What the validator said of both models, and which of them was kept."""

    validator: str
    adapted: float
    source_only: float
    kept: str
    share_distance: float | None = None
    """How far apart the class shares are that both predict on the target; None where there are no classes."""

    def in_words(self) -> str:
        """What was kept and why, and whether the validator can be relied on."""
        return self._choice() + self._doubt()

    def _doubt(self) -> str:
        if self.share_distance is None or self.share_distance < FAR:
            return ""
        return (
            f" The class shares that they predict on the target are far apart (distance {self.share_distance:.2f} of "
            "1), and no validator without target labels can tell which are right: check on some labelled target rows."
        )

    def _choice(self) -> str:
        scores = f"`{self.validator}`: adapted {self.adapted:.4f}, source only {self.source_only:.4f}"
        is_worse = not self.adapted >= self.source_only
        if self.kept == SOURCE_ONLY:
            return f"{scores}; negative transfer, source only is kept (`keep_adapted: true` keeps the adapted model)."
        return f"{scores}; the adapted model is kept{' all the same, as asked' if is_worse else ''}."

    def table(self) -> TableFact:
        """For the model card."""
        scores = {ADAPTED: self.adapted, SOURCE_ONLY: self.source_only}
        rows = [[model, score, "yes" if model == self.kept else ""] for model, score in scores.items()]
        return TableFact("Adapted or source only", ["model", self.validator, "kept"], rows, self.in_words())

    def to_dict(self) -> dict[str, Any]:
        """For `results.json`."""
        return asdict(self)


def check_reference(trainer: DomainAdaptationTrainer, folder: Path) -> None:
    """Raises ValueError when the folder does not hold a model of the trainer's kind."""
    if not folder.is_dir():
        raise ValueError(f"`source_only`: `{folder}` does not hold a source-only model, as there is no such folder.")
    with kept_weights(trainer):
        load_reference(trainer, folder)


def load_reference(trainer: DomainAdaptationTrainer, folder: Path) -> None:
    try:
        trainer.transfer_model.load_model_weights(folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"`{folder}` does not hold a source-only model of the kind in training: {error}") from error


def choose(
    trainer: DomainAdaptationTrainer,
    folder: Path,
    keep_adapted: bool,
    see_reference: Callable[[tuple[Tensor, ...]], None] | None = None,
) -> GuardVerdict:
    """Score both models, and leave the trainer with the one that is kept.

    Args:
        trainer: after its training.
        folder: of the source-only model.
        keep_adapted: whatever the validator says.
        see_reference: is given the validation outputs of the source-only model.
    """
    trainer.keeps_outputs = True  # one pass over the rows a model: validators and pictures read them too
    adapted_score, adapted_shares = trainer.validate(), predicted_shares(trainer)
    adapted_outputs, trainer.kept_outputs = trainer.kept_outputs, None
    with kept_weights(trainer):
        load_reference(trainer, folder)
        reference_score, reference_shares = trainer.validate(), predicted_shares(trainer)
        if see_reference is not None:
            see_reference(trainer.validation_outputs())
    reference_outputs, trainer.kept_outputs = trainer.kept_outputs, adapted_outputs
    is_better = adapted_score >= reference_score or math.isnan(reference_score)
    kept = ADAPTED if is_better or keep_adapted else SOURCE_ONLY
    if kept == SOURCE_ONLY:
        load_reference(trainer, folder)
        trainer.kept_outputs = reference_outputs
    apart = None if adapted_shares is None else distance_of_shares(adapted_shares, reference_shares)
    verdict = GuardVerdict(trainer.args.validator, adapted_score, reference_score, kept, apart)
    logger.warning(verdict.in_words())
    return verdict


def predicted_shares(trainer: DomainAdaptationTrainer) -> torch.Tensor | None:
    """Shares [C] of the classes that the present model predicts on the target; None where it predicts none."""
    if trainer.problem_type != SINGLE_LABEL:
        return None
    return ClassShares.of(*trainer.validation_outputs()[1:]).target


@contextmanager
def kept_weights(trainer: DomainAdaptationTrainer) -> Iterator[None]:
    """The model has its present weights again afterwards."""
    model = trainer.adapted_model
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        yield
    finally:
        model.load_state_dict(kept)
