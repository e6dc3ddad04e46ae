"""LogME: the log of the maximum evidence of a Bayesian linear model on frozen features.

For each target column y (one-hot classes, labels, or regression values)

    y = F w + noise,   w ~ N(0, I / alpha),   noise ~ N(0, I / beta)
    score = mean over columns of  max_{alpha, beta} log N(y; 0, I / beta + F F^T / alpha) / n

With t = alpha / beta the best alpha and beta are known in closed form, and one number per column is left to find. Here
lambda_i are the eigenvalues of F^T F, z_i the coordinates of y along the left singular vectors, r = |y|^2 - |z|^2,
w_i = t / (lambda_i + t):

    Q(t) = sum_i z_i^2 w_i + r,   beta = n / Q,   alpha = t * beta
    evidence(t) = n/2 (log n - 1 - log 2 pi) - n/2 log Q(t) + 1/2 sum_i log w_i

Its stationary points are the fixed points of the published iterations, which climb from t = 1. The same maximum is
found here by a grid and Newton steps, all columns at once; where the evidence keeps growing as t goes to 0 (an exact
fit) or to infinity (nothing to fit), t stops where float64 sees no more change.

Only F^T F, F^T Y, sum Y^2 and n are needed, so it streams and merges, and it stays exact for n < D and for
rank-deficient features (zero eigenvalues have w = 1 and drop out).

Paper: You et al., ICML 2021, https://huggingface.co/papers/2102.11005, and JMLR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_transfer.functional.evidence import Evidence as Evidence
from hf_transfer.functional.evidence import bracket as bracket
from hf_transfer.functional.evidence import maximum_evidence as maximum_evidence
from hf_transfer.ranking.moments import MomentScore, second_moments
from hf_transfer.ranking.score import Statistics


def logme(features: Tensor, labels: Tensor) -> float:
    """LogME of features [n, D] held in memory; labels [n] (class indices or values) or [n, C]."""
    statistics = second_moments(features.double(), labels)
    return maximum_evidence(statistics["gram"], statistics["cross"], statistics["energy"], len(features)).score


class LogME(MomentScore):
    """Streaming LogME for classification, regression and multi-label targets; higher is better.

    The standard error is an infinitesimal jackknife: alpha, beta and the posterior means are stationary, so the
    derivative of the evidence by the weight of a shard needs no new eigendecomposition.
    """

    paper: ClassVar[str] = "2102.11005"

    def __init__(self, *, shards: int = 10):
        super().__init__(shards=shards)
        self._solved: tuple[Statistics, Evidence] | None = None

    def evidence(self) -> Evidence:
        """Maximum evidence with alpha, beta and the posterior means [C', D] of all rows so far."""
        return self._evidence_of(self.total())

    def _evidence_of(self, statistics: Statistics) -> Evidence:
        # `compute` asks twice for the same statistics; the eigendecomposition is the price of a score.
        if self._solved is None or self._solved[0] is not statistics:
            rows = round(statistics["rows"].item())
            solution = maximum_evidence(statistics["gram"], statistics["cross"], statistics["energy"], rows)
            self._solved = (statistics, solution)
        return self._solved[1]

    def value(self, statistics: Statistics) -> tuple[float, dict[str, Any]]:
        evidence = self._evidence_of(statistics)
        return evidence.score, {
            "rows": evidence.rows,
            "dimension": len(statistics["gram"]),
            "rank": len(evidence.eigenvalues),
            "columns": len(evidence.columns),
            "is_bounded": evidence.is_bounded,
        }

    def leave_one_out(self, shards: Sequence[Statistics], total: Statistics) -> list[float]:
        evidence, count = self._evidence_of(total), len(shards)
        curvature = evidence.curvature()
        influences = (shard_influence(evidence, curvature, shard) for shard in shards)
        return [evidence.score - count / (count - 1) * influence for influence in influences]


def shard_influence(evidence: Evidence, curvature: Tensor, shard: Statistics) -> float:
    """Derivative of the score by the weight of one shard, alpha, beta and the means held at their optimum.

    With the shard's moments G, b = F^T y, e = |y|^2 and its rows n_s, summed over the columns:

        n_s/2 log(beta / 2 pi) - beta/2 (e - 2 m.b) - 1/2 <G, curvature> - n_s evidence / n
    """
    width = int(evidence.columns.max()) + 1
    cross = torch.nn.functional.pad(shard["cross"], (0, max(0, width - shard["cross"].shape[1])))
    energy = torch.nn.functional.pad(shard["energy"], (0, max(0, width - len(shard["energy"]))))
    cross, energy = cross[:, evidence.columns], energy[evidence.columns]
    rows, beta = shard["rows"].item(), evidence.beta
    misfit = energy - 2 * (evidence.posterior_means * cross.T).sum(dim=1)
    change = rows / 2 * (beta.log() - math.log(2 * math.pi)) - beta * misfit / 2
    change = float((change - rows * evidence.log_evidence / evidence.rows).sum())
    change -= float(torch.dot(shard["gram"].flatten(), curvature.flatten())) / 2
    return change / len(evidence.columns) / evidence.rows
