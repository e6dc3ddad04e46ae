"""Batch spectral penalisation: keeps the leading directions from dominating adversarially trained features.

    loss = sum_{i=1..k} (sigma_{source,i}^2 + sigma_{target,i}^2)

sigma_i is the i-th largest singular value of a domain's feature matrix [B, D]. It accompanies DANN or CDAN, whose
transferability gain costs discriminability along all but the leading directions.

Paper: Chen et al., "Transferability vs. Discriminability: Batch Spectral Penalization for Adversarial Domain
Adaptation", ICML 2019, https://proceedings.mlr.press/v97/chen19i.html. k = 1 and weight 2e-4 as in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_transfer.core.objective import Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.domain_adaptation.two_domains import has_both_domains
from hf_transfer.functional.keyword_checks import require_positive


def batch_spectral_penalty(source: Tensor, target: Tensor, k: int = 1) -> Tensor:
    """Sum of the k largest squared singular values of both feature matrices, a scalar.

    Args:
        source: [n, D].
        target: [m, D].
        k: how many of each.
    """
    return sum(torch.linalg.svdvals(features)[:k].square().sum() for features in (source, target))


class BSP(Objective):
    """The largest squared singular values of the features of both domains.

    Args:
        k: how many singular values of each domain are penalised.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `k` is not positive.
    """

    paper = "https://proceedings.mlr.press/v97/chen19i.html"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "domain", "global_batch"})

    def __init__(self, k: int = 1, weight: float = 2e-4):
        super().__init__(weight)
        require_positive(k=k)
        self.k = k

    def forward(self, view: View) -> Tensor:
        if not has_both_domains(view):
            return no_loss(view)
        return batch_spectral_penalty(view.source.features, view.target.features, self.k)
