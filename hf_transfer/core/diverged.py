"""The error of a training whose numbers are no longer finite; it can be resumed from its last checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class TrainingDiverged(FloatingPointError):
    """A loss, or what a decomposition was asked of, is not a finite number. The step that met it changed no weight."""


def failed_decomposition(name: str, features: Tensor, error: torch.linalg.LinAlgError) -> TrainingDiverged:
    """The error of an objective whose decomposition (singular values, eigenvalues) failed.

    Args:
        name: of the objective.
        features: [B, D], which it decomposed.
        error: what torch said.
    """
    broken = int((~features.detach().isfinite()).any(dim=1).sum())
    reason = f"{broken} of {len(features)} rows of features are not finite" if broken else str(error).split("\n")[0]
    return TrainingDiverged(f"objective `{name}` could not decompose the features: {reason}")


def infinite_terms(loss: Tensor, sums: Mapping[str, Tensor]) -> TrainingDiverged:
    """The error of a loss that is not finite.

    Args:
        loss: of the step.
        sums: of each term of the loss, by name.
    """
    terms = [name for name, value in sums.items() if not torch.isfinite(value).all()]
    of = f" (of the terms: {', '.join(f'`{name}`' for name in terms)})" if terms else ""
    # The logarithm of a probability of zero: no learning rate mends a label that the model rules out.
    advice = ", and check that no label is a class whose logit the model sets to -inf" if loss.isposinf() else ""
    return TrainingDiverged(f"the loss is {loss.item()}{of}{advice}")


def at_step(error: TrainingDiverged, step: int, checkpoint: str | None) -> TrainingDiverged:
    """The same error with the step it happened in and how to go on.

    Args:
        error: without them.
        step: counted from 1.
        checkpoint: the last complete one, or None.
    """
    if checkpoint is None:
        how = "No checkpoint was saved: start again with a smaller learning rate or a smaller weight of the objective"
    else:
        how = (
            f"Resume from {checkpoint} (resume_from_checkpoint) with a smaller learning rate or a smaller weight of "
            "the objective"
        )
    return TrainingDiverged(f"step {step}: {error}. {how}.")
