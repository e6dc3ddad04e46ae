"""Adaptive feature norm: every feature vector is asked to be a step longer than it is.

    loss = sum over domains of E (||f|| - sg(||f||) - step)^2

sg stops the gradient, so the value is the constant 2 step^2 and only its gradient -2 step f/||f|| matters.

Paper: Xu et al., "Larger Norm More Transferable: An Adaptive Feature Norm Approach for Unsupervised Domain
Adaptation", ICCV 2019, https://huggingface.co/papers/1811.07456. Step 1 and weight .05 as in the paper.
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.objective import Objective, View, no_loss


def adaptive_feature_norm(features: Tensor, step: float = 1.0) -> Tensor:
    """E (||f|| - sg(||f||) - step)^2, a scalar equal to step^2.

    Args:
        features: [B, D].
        step: how much longer every row should become.
    """
    norms = features.norm(dim=1)
    return (norms - norms.detach() - step).square().mean()


class AFN(Objective):
    """Stepwise adaptive feature norm on both domains.

    Args:
        step: the difference of norms asked for at every step.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `step` is not positive.
    """

    paper = "1811.07456"
    needs = frozenset({"domain"})

    def __init__(self, step: float = 1.0, weight: float = 0.05):
        super().__init__(weight)
        require_positive(step=step)
        self.step = step

    def forward(self, view: View) -> Tensor:
        domains = [domain.features for domain in (view.source, view.target) if len(domain.features)]
        return sum((adaptive_feature_norm(features, self.step) for features in domains), no_loss(view))
