"""TransRate: how much shorter the features' code becomes when the classes are known.

    R(Z) = 1/2 log det(I + Z^T Z / (n eps)),   Z centred
    TransRate = R(Z) - 1/C sum_c R(Z_c),       Z_c the centred rows of class c, n_c of them

The mean over classes and eps = 1e-4 are the paper's; the value depends on the scale of the features, as the paper's
does.

Paper: Huang et al., ICML 2022, https://huggingface.co/papers/2106.09362
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_transfer.ranking.reservoir import ReservoirScore
from hf_transfer.ranking.score import Statistics, check_classes


def coding_rate(features: Tensor, eps: float) -> Tensor:
    """1/2 log det(I + Z^T Z / (n eps)) of rows [n, D], through the smaller of the two equal determinants."""
    rows, size = features.shape
    gram = features @ features.T if rows < size else features.T @ features
    return torch.linalg.slogdet(torch.eye(len(gram)).to(gram) + gram / (rows * eps)).logabsdet / 2


def trans_rate(features: Tensor, labels: Tensor, eps: float = 1e-4) -> float:
    """TransRate of features [n, D] and labels [n] held in memory."""
    features = features.double() - features.double().mean(dim=0)
    rates = [coding_rate(features[labels == label], eps) for label in labels.unique()]
    return float(coding_rate(features, eps) - torch.stack(rates).mean())


class TransRate(ReservoirScore):
    """TransRate on up to `max_rows` rows; higher is better.

    Args:
        eps: the distortion that the code allows.
    """

    paper: ClassVar[str] = "2106.09362"

    def __init__(self, *, eps: float = 1e-4, max_rows: int = 5000, shards: int = 10):
        if eps <= 0:
            raise ValueError(f"`eps` should be positive, got {eps}.")
        super().__init__(max_rows=max_rows, shards=shards)
        self.eps = eps

    def check(self, features: Tensor, labels: Tensor) -> None:
        super().check(features, labels)
        check_classes(self, labels)

    def value(self, statistics: Statistics) -> tuple[float, dict[str, Any]]:
        features, labels = statistics["features"], statistics["labels"]
        return trans_rate(features, labels, self.eps), {"rows_kept": len(labels), "classes": len(labels.unique())}
