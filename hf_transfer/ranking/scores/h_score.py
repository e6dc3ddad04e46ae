"""H-score: how much of the features' spread lies between the classes.

    H = tr( cov(f)^-1 cov(E[f | y]) )

`HScore(shrinkage=True)` (registered as "shrunk_h_score") estimates cov(f) by Ledoit and Wolf, which a small target set
needs: with shrinkage a, mu = tr(S)/D

    cov = (1 - a) S + a mu I,   H_a = tr( cov^-1 (1 - a) cov(E[f | y]) )

Covariances divide by n - 1 in the plain score, as its authors' code does, and by n in the shrunk one's estimator.

Papers: Bao et al., ICIP 2019, https://doi.org/10.1109/ICIP.2019.8803726; Ibrahim et al., 2021,
https://huggingface.co/papers/2110.06893; Ledoit and Wolf, 2004, https://doi.org/10.1016/S0047-259X(03)00096-4
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_transfer.ranking.moments import MomentScore, symmetric
from hf_transfer.ranking.score import Statistics, check_classes

RANK_TOLERANCE = 1e-15


def h_score(features: Tensor, labels: Tensor, shrinkage: bool = False) -> float:
    """H-score of features [n, D] and labels [n] held in memory."""
    score = HScore(shrinkage=shrinkage, shards=1)
    score.update(features, labels)
    return score.compute().value


class HScore(MomentScore):
    """Streaming H-score for class labels; higher is better, at most C - 1.

    Args:
        shrinkage: estimate the covariance of the features by Ledoit and Wolf.
    """

    paper: ClassVar[str] = "10.1109/ICIP.2019.8803726"

    def __init__(self, *, shrinkage: bool = False, shards: int = 10):
        super().__init__(shards=shards)
        self.shrinkage = shrinkage

    def check(self, features: Tensor, labels: Tensor) -> None:
        super().check(features, labels)
        check_classes(self, labels)

    def sums(self, features: Tensor) -> Statistics:
        if not self.shrinkage:
            return {}
        norms = features.square().sum(dim=1)
        return {"norms": norms.sum()[None], "quartic": norms.square().sum()[None], "cubic": norms @ features}

    def value(self, statistics: Statistics) -> tuple[float, dict[str, Any]]:
        statistics = statistics | {"gram": symmetric(statistics["gram"])}
        rows = statistics["rows"].item()
        counts = statistics["energy"]
        mean = statistics["cross"].sum(dim=1) / rows
        covariance = statistics["gram"] / rows - torch.outer(mean, mean)
        present = counts > 0
        means = statistics["cross"][:, present] / counts[present] - mean[:, None]
        between = (means * counts[present]) @ means.T / (rows - 1)
        diagnostics: dict[str, Any] = {"rows": round(rows), "dimension": len(mean), "classes": int(present.sum())}
        if not self.shrinkage:
            inverse = torch.linalg.pinv(
                covariance * rows / (rows - 1), hermitian=True, rtol=RANK_TOLERANCE * len(mean)
            )
            return float((inverse * between).sum()), diagnostics
        amount = ledoit_wolf_shrinkage(statistics, covariance, mean, rows)
        scale = covariance.trace() / len(mean)
        shrunk = (1 - amount) * covariance + amount * scale * torch.eye(len(mean)).to(covariance)
        inverse = torch.linalg.pinv(shrunk, hermitian=True)
        return float((1 - amount) * (inverse * between).sum()), diagnostics | {"shrinkage": amount}


def ledoit_wolf_shrinkage(statistics: Statistics, covariance: Tensor, mean: Tensor, rows: float) -> float:
    """The shrinkage a in [0, 1] of least expected squared error.

    a = min(b, d) / d,   d = |S - mu I|^2,   b = (sum_n |x_n - mean|^4 / n - |S|^2) / n
    """
    square = mean @ mean
    fourth = (
        statistics["quartic"].item()
        - 4 * mean @ statistics["cubic"]
        + 4 * mean @ statistics["gram"] @ mean
        + 2 * square * statistics["norms"].item()
        - 3 * rows * square.square()
    )
    size = len(mean)
    distance = covariance.square().sum() - covariance.trace().square() / size
    noise = (fourth / rows - covariance.square().sum()) / rows
    return float((noise / distance).clamp(0, 1)) if distance > 0 else 0.0


class ShrunkHScore(HScore):
    """H-score with the shrinkage of Ledoit and Wolf."""

    paper: ClassVar[str] = "2110.06893"

    def __init__(self, *, shards: int = 10):
        super().__init__(shrinkage=True, shards=shards)
