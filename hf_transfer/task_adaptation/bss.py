"""Batch spectral shrinkage: suppresses the directions of the features that do not transfer.

    loss = sum_{i=1..k} sigma_{-i}^2

sigma_{-i} is the i-th smallest singular value of the batch's feature matrix [B, D].

Paper: Chen et al., "Catastrophic Forgetting Meets Negative Transfer: Batch Spectral Shrinkage for Safe Transfer
Learning", NeurIPS 2019,
https://proceedings.neurips.cc/paper/2019/hash/c6bff625bdb0393992c9d4db0c6bbe45-Abstract.html.
k = 1 and weight 1e-3 as in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_transfer.core.objective import Objective, View
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.keyword_checks import require_positive


def batch_spectral_shrinkage(features: Tensor, k: int = 1) -> Tensor:
    """Sum of the k smallest of the min(B, D) squared singular values (of all, where there are fewer than k).

    Args:
        features: [B, D].
        k: how many.
    """
    # The eigenvalues of the smaller Gram matrix cost a fraction of a singular value decomposition, and their gradient
    # u u^T stays finite where they coincide. Squaring costs half of the digits, so it is done in double precision.
    wide = features.double()
    gram = wide @ wide.T if len(wide) <= wide.shape[1] else wide.T @ wide
    return torch.linalg.eigvalsh(gram)[:k].sum().to(features.dtype)


class BSS(Objective):
    """The k smallest squared singular values of the features of a batch.

    Args:
        k: how many singular values are penalised.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `k` is not positive.
    """

    paper = "https://proceedings.neurips.cc/paper/2019/hash/c6bff625bdb0393992c9d4db0c6bbe45-Abstract.html"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "global_batch"})

    def __init__(self, k: int = 1, weight: float = 1e-3):
        super().__init__(weight)
        require_positive(k=k)
        self.k = k

    def forward(self, view: View) -> Tensor:
        return batch_spectral_shrinkage(view.features, self.k)
