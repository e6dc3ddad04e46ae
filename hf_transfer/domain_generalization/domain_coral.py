"""Correlation alignment of several domains: the sources' features get the same means and covariances, pair by pair.

    loss = mean over pairs e < f of  ||mu_e - mu_f||^2 / D  +  ||C_e - C_f||_F^2 / D^2

mu_e [D] is the mean and C_e [D, D] the unbiased covariance of the features of environment e.

Paper: Sun and Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", ECCV workshops 2016,
https://huggingface.co/papers/1607.01719, between all pairs of sources and with the means, as the DomainBed benchmark
has it for generalisation: Gulrajani and Lopez-Paz, "In Search of Lost Domain Generalization", ICLR 2021,
https://huggingface.co/papers/2007.01434
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from hf_transfer.core.objective import Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.sources import environments_of


def moment_distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared differences of the means and of the covariances, added: a scalar.

    Args:
        first: [n, D], n >= 2.
        second: [m, D], m >= 2.
    """
    means = (first.mean(dim=0) - second.mean(dim=0)).square().mean()
    return means + (torch.cov(first.T) - torch.cov(second.T)).square().mean()


class DomainCORAL(Objective):
    """Distance of the means and covariances of the environments' features; the `domain` column numbers them.

    No label is read: an unlabelled domain among them is aligned too.

    Args:
        weight: factor of this term in the training loss; 1 as in the DomainBed benchmark.

    Raises:
        ValueError: in training, the batch has no `domain`.
    """

    paper = "2007.01434"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "environments", "global_batch"})
    rows_per_domain = 2

    def forward(self, view: View) -> Tensor:
        environment = environments_of(view)
        groups = [view.features[environment == number] for number in environment.unique()]
        pairs = list(combinations([features for features in groups if len(features) >= 2], 2))
        if not pairs:
            return no_loss(view)
        return torch.stack([moment_distance(*pair) for pair in pairs]).mean()
