"""Domain adaptive transfer: the pre-training rows that look like the target's classes are drawn more often.

    w(y) = P_t(y) / P_s(y),   P_t(y) = mean over target rows x of p(y | x),   P_s(y) = share of y among the source rows
    effective rows = (sum_i w_i)^2 / sum_i w_i^2

p(y | x) is what a classifier of the source's classes says of the target's rows, whose labels are not read. Drawing
source rows with a probability in proportion to w makes their classes as frequent as the target asks, so that their
mean loss is that of the target where P_s(x | y) = P_t(x | y). Weights above `max_weight` are cut, and are scaled so
that the mean over the source rows is 1; the effective rows say how many different rows the draw is worth. A class
without source rows has no weight: its share of the target is told.

Paper: Ngiam et al., "Domain Adaptive Transfer Learning with Specialist Models", 2018,
https://huggingface.co/papers/1811.07056. The paper cuts no weights; `max_weight` is ours and off by default.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PAPER = "1811.07056"


@dataclass(frozen=True)
class ImportanceWeights:
    """How often rows of each class are drawn.

    Args:
        weights: [C] w(y), 0 for a class without source rows.
        effective_rows: as many rows drawn evenly tell as much as all rows drawn so.
        lost_share: of the target's mass, what lies on classes without source rows.
    """

    weights: Tensor
    effective_rows: float
    lost_share: float

    def of_rows(self, labels: Tensor) -> Tensor:
        """The weight of every source row, [N], of its class [N]."""
        return self.weights[labels]


def dat_weights(
    target_probabilities: Tensor, source_labels: Tensor, max_weight: float | None = None
) -> ImportanceWeights:
    """The importance weights of the source's classes.

    Args:
        target_probabilities: [M, C] p(y | x) of every target row; each row sums to 1.
        source_labels: [N] classes of the source rows.
        max_weight: the largest weight before scaling; None cuts none.

    Raises:
        ValueError: no rows, labels outside the classes, rows that are no probabilities, `max_weight` not positive, or
            a target all of whose mass is on classes without source rows.
    """
    if max_weight is not None and not max_weight > 0:
        raise ValueError(f"`max_weight` should be positive, got {max_weight}.")
    if len(target_probabilities) == 0 or len(source_labels) == 0:
        raise ValueError("importance weights need target rows and labelled source rows, and one of them has none.")
    sums = target_probabilities.double().sum(dim=1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-3) or (target_probabilities < 0).any():
        raise ValueError(
            "`target_probabilities` should be probabilities, rows of which sum to 1: take a softmax first."
        )
    classes = target_probabilities.shape[1]
    if source_labels.min() < 0 or source_labels.max() >= classes:
        raise ValueError(
            f"source labels should be in 0..{classes - 1}, the classes of the classifier, got "
            f"{int(source_labels.min())}..{int(source_labels.max())}."
        )
    target = target_probabilities.double().mean(dim=0)
    source = source_labels.bincount(minlength=classes).double() / len(source_labels)
    known = source > 0
    weights = torch.where(known, target / source.clamp(min=torch.finfo(torch.double).tiny), 0.0)
    if max_weight is not None:
        weights = weights.clamp(max=max_weight)
    mean = (source * weights).sum()
    if mean <= 0:
        raise ValueError("the target looks like no class that the source has rows of: pre-train on other rows.")
    weights = weights / mean
    effective = len(source_labels) / (source * weights.square()).sum().item()
    return ImportanceWeights(weights, effective, target[~known].sum().item())


dat_weights.paper = PAPER
