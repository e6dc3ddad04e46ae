"""Adaptive feature norm: features of both domains are asked to be longer, by a step at a time or up to a norm.

    stepwise:  loss = sum over domains of E (||f|| - sg(||f||) - step)^2
    hard:      loss = sum over domains of (E ||f|| - norm)^2

sg stops the gradient, so the stepwise value is the constant 2 step^2 and only its gradient -2 step f/||f|| matters.
That gradient never ends. Under SGD its size is bounded by the weight; Adam rescales it, and features can grow until
the classifier is lost: watch the source accuracy there, or use the hard form, which stops at its norm.

Paper: Xu et al., "Larger Norm More Transferable: An Adaptive Feature Norm Approach for Unsupervised Domain
Adaptation", ICCV 2019, https://huggingface.co/papers/1811.07456. Step 1, weight .05, and norm 25 of the hard form as
in the paper.
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.core.objective import Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.keyword_checks import require_positive


def adaptive_feature_norm(features: Tensor, step: float = 1.0) -> Tensor:
    """E (||f|| - sg(||f||) - step)^2, a scalar equal to step^2.

    Args:
        features: [B, D].
        step: how much longer every row should become.
    """
    norms = features.norm(dim=1)
    return (norms - norms.detach() - step).square().mean()


def hard_feature_norm(features: Tensor, norm: float = 25.0) -> Tensor:
    """(E ||f|| - norm)^2, a scalar.

    Args:
        features: [B, D].
        norm: the mean length that rows should have.
    """
    return (features.norm(dim=1).mean() - norm).square()


class AFN(Objective):
    """Adaptive feature norm on both domains.

    Args:
        step: the difference of norms asked for at every step.
        norm: the mean norm asked for, which makes the form hard; None for the stepwise one.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `step` or `norm` is not positive.
    """

    paper = "1811.07456"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "domain", "global_batch"})

    def __init__(self, step: float = 1.0, norm: float | None = None, weight: float = 0.05):
        super().__init__(weight)
        require_positive(step=step)
        if norm is not None:
            require_positive(norm=norm)
        self.step, self.norm = step, norm

    def forward(self, view: View) -> Tensor:
        domains = [domain.features for domain in (view.source, view.target) if len(domain.features)]
        return sum((self.longer(features) for features in domains), no_loss(view))

    def longer(self, features: Tensor) -> Tensor:
        """The loss of one domain's features [B, D]."""
        if self.norm is None:
            return adaptive_feature_norm(features, self.step)
        return hard_feature_norm(features, self.norm)
