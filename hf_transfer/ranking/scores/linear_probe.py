"""Linear probe: leave-one-out accuracy of ridge regression on frozen features, in closed form.

With centred features F = U S V^T, targets Y (one-hot classes) and ridge l, the fit without row n costs nothing extra:

    h_n = 1/n + sum_i U_ni^2 s_i^2 / (s_i^2 + l)
    leave-one-out prediction = y_n - (y_n - fit_n) / (1 - h_n)

The ridge is the one of least squared leave-one-out error. Classes: share of rows whose largest prediction is their
label. Values and multi-label: R^2 of the predictions, averaged over columns that vary.

As a proxy of fine-tuned accuracy: Renggli et al., CVPR 2022, https://huggingface.co/papers/2010.06402. Closed form:
Allen, Technometrics 1974, https://doi.org/10.1080/00401706.1974.10489157
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_transfer.ranking.reservoir import ReservoirScore, means_without_each_shard
from hf_transfer.ranking.score import Statistics, target_columns
from hf_transfer.ranking.scores.knn import explained

# Ridges tried, as multiples of the mean squared singular value.
RIDGES = tuple(10.0**exponent for exponent in range(-6, 4))


def leave_one_out_predictions(features: Tensor, targets: Tensor) -> tuple[Tensor, float]:
    """Predictions [n, C] of ridge regression without each row in turn, and the ridge; all in float64.

    Raises:
        ValueError: fewer than two rows, or features that are all the same.
    """
    centred, mean = features - features.mean(dim=0), targets.mean(dim=0)
    squares, basis = left_basis(centred)
    if len(features) < 2 or len(squares) == 0:
        raise ValueError("A linear probe needs at least two rows whose features differ.")
    coordinates = basis.T @ (targets - mean)
    best: tuple[float, Tensor, float] | None = None
    for multiple in RIDGES:
        ridge = multiple * float(squares.mean())
        kept = squares / (squares + ridge)
        fit = mean + basis @ (kept[:, None] * coordinates)
        leverage = 1 / len(features) + basis.square() @ kept
        residual = (targets - fit) / (1 - leverage).clamp(min=1e-12)[:, None]
        error = float(residual.square().mean())
        if best is None or error < best[0]:
            best = (error, targets - residual, ridge)
    return best[1], best[2]


def left_basis(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values [r] of [n, D] and left singular vectors [n, r], through the smaller Gram matrix."""
    rows, size = centred.shape
    gram = centred @ centred.T if rows < size else centred.T @ centred
    squares, vectors = torch.linalg.eigh(gram)
    keep = squares > squares[-1].clamp(min=0) * max(rows, size) * torch.finfo(gram.dtype).eps
    squares, vectors = squares[keep], vectors[:, keep]
    return squares, vectors if rows < size else centred @ vectors / squares.sqrt()


class LinearProbe(ReservoirScore):
    """Leave-one-out accuracy (R^2 for values and multi-label) of a ridge probe on up to `max_rows` rows."""

    paper: ClassVar[str] = "2010.06402"

    def value(self, statistics: Statistics) -> tuple[float, dict[str, Any]]:
        verdicts, ridge = self._verdicts(statistics)
        return float(verdicts.mean()), {"rows_kept": len(verdicts), "ridge": ridge}

    def leave_one_out(self, shards: Sequence[Statistics], total: Statistics) -> list[float]:
        # Each row was already predicted from the others: leaving out a shard leaves out its rows' verdicts.
        return means_without_each_shard(self._verdicts(total)[0], shards)

    def _verdicts(self, statistics: Statistics) -> tuple[Tensor, float]:
        labels = statistics["labels"]
        targets = target_columns(labels).to(statistics["features"].device)
        predictions, ridge = leave_one_out_predictions(statistics["features"].double(), targets)
        if labels.ndim == 1 and not labels.is_floating_point():
            return (predictions.argmax(dim=1) == labels).double(), ridge
        return explained(predictions, targets), ridge
