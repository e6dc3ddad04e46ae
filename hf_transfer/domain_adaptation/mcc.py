"""Minimum class confusion on the target rows.

    loss = (1/C) sum_{i != j} Cbar_ij,   Cbar_ij = C_ij / sum_j' C_ij',   C = P^T diag(w) P,   P = softmax(logits / T)

w are the certainty weights 1 + exp(-H(P_b)), normalised to sum to the batch size and detached.

Paper: Jin et al., "Minimum Class Confusion for Versatile Domain Adaptation", ECCV 2020,
https://huggingface.co/papers/1912.03699. T = 2.5 as in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.functional import certainty_weights
from hf_transfer.functional.keyword_checks import require_positive


def minimum_class_confusion(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """Mean off-diagonal mass of the normalised class confusion matrix, a scalar in [0, 1).

    Args:
        logits: [B, C] of unlabelled rows.
        temperature: T > 0.
    """
    logits = logits / temperature
    predictions = logits.softmax(dim=1)
    confusion = (predictions * certainty_weights(logits).unsqueeze(1)).T @ predictions  # [C, C]
    # A class that no row gives any mass in floating point has an empty row: it confuses nothing.
    confusion = confusion / confusion.sum(dim=1, keepdim=True).clamp_min(torch.finfo(logits.dtype).tiny)
    return (confusion.sum() - confusion.trace()) / len(confusion)


class MCC(Objective):
    """Minimum class confusion of the target predictions.

    Args:
        temperature: T, softens the predictions before their confusion is measured.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `temperature` is not positive; at `build`, the model has fewer than two classes.
    """

    paper = "1912.03699"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"logits", "domain", "global_batch"})

    def __init__(self, temperature: float = 2.5, weight: float = 1.0):
        super().__init__(weight)
        require_positive(temperature=temperature)
        self.temperature = temperature

    def build(self, context: BuildContext) -> None:
        context.require_classes(2, "MCC")

    def forward(self, view: View) -> Tensor:
        target = view.target
        if not len(target.logits):
            return no_loss(view)
        return minimum_class_confusion(target.logits, self.temperature)
