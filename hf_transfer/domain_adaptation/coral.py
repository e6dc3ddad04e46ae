"""Correlation alignment: the distance between the covariances of the two domains.

    loss = ||C_source - C_target||_F^2 / (4 D^2)

C are the unbiased covariance matrices [D, D] of the features.

Paper: Sun and Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", ECCV workshops 2016,
https://huggingface.co/papers/1607.01719
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_transfer.core.objective import Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.domain_adaptation.two_domains import has_both_domains


def correlation_alignment(source: Tensor, target: Tensor) -> Tensor:
    """Squared Frobenius distance of the covariances over 4 D^2, a scalar.

    Args:
        source: [n, D], n >= 2.
        target: [m, D], m >= 2.
    """
    return (torch.cov(source.T) - torch.cov(target.T)).square().sum() / (4 * source.shape[1] ** 2)


class CORAL(Objective):
    """Distance of the feature covariances of the two domains.

    Args:
        weight: factor of this term in the training loss. The loss shrinks as 1/D^2; the paper chose the weight
            so that it and the task loss end up about equal.
    """

    paper = "1607.01719"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "domain", "global_batch"})
    rows_per_domain = 2

    def forward(self, view: View) -> Tensor:
        if not has_both_domains(view, at_least=self.rows_per_domain):
            return no_loss(view)
        return correlation_alignment(view.source.features, view.target.features)
