"""kNN: leave-one-out accuracy of the k nearest neighbours by cosine similarity.

    classes: share of rows whose label is the most frequent among its k nearest other rows (ties: the nearer ones)
    values:  R^2 = 1 - sum (y - mean of the k nearest)^2 / sum (y - mean)^2, averaged over columns that vary

As a proxy of fine-tuned accuracy: Renggli et al., CVPR 2022, https://huggingface.co/papers/2010.06402
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transfer.ranking.reservoir import ReservoirScore, means_without_each_shard
from hf_transfer.ranking.score import Statistics

ROWS_AT_ONCE = 1024


def nearest_neighbours(features: Tensor, k: int) -> Tensor:
    """Indices [n, k] of the most similar other rows by cosine, nearest first."""
    directions = F.normalize(features, dim=1)
    found = []
    for start in range(0, len(features), ROWS_AT_ONCE):
        block = directions[start : start + ROWS_AT_ONCE]
        similarity = block @ directions.T
        similarity[torch.arange(len(block)), torch.arange(start, start + len(block))] = -torch.inf
        found.append(similarity.topk(k, dim=1).indices)
    return torch.cat(found)


def majority(labels: Tensor) -> Tensor:
    """Most frequent label [n] of each row of neighbours' labels [n, k]; the first of them decides a tie."""
    votes = (labels.unsqueeze(2) == labels.unsqueeze(1)).sum(dim=2)
    # `argmax` may return any of equal votes: the index breaks the tie.
    order = torch.arange(labels.shape[1], device=labels.device)
    winner = (votes * labels.shape[1] - order).argmax(dim=1)
    return labels.gather(1, winner.unsqueeze(1)).squeeze(1)


def explained(prediction: Tensor, targets: Tensor) -> Tensor:
    """Per-row parts [n] whose mean is R^2: 1 - n (y - prediction)^2 / sum (y - mean)^2, averaged over columns.

    Columns that are the same for all rows (a label that none of them has) have nothing to explain and are left out.

    Raises:
        ValueError: all columns are.
    """
    varies = (targets != targets[0]).any(dim=0)
    if not varies.any():
        raise ValueError("The targets are the same for all rows: R^2 is not defined.")
    prediction, targets = prediction[:, varies], targets[:, varies]
    spread = (targets - targets.mean(dim=0)).square().mean(dim=0)
    return (1 - (targets - prediction).square() / spread).mean(dim=1)


class KNN(ReservoirScore):
    """Leave-one-out kNN accuracy (R^2 for values) on up to `max_rows` rows; higher is better.

    Args:
        k: neighbours, at most one less than the rows.
    """

    paper: ClassVar[str] = "2010.06402"

    def __init__(self, *, k: int = 5, max_rows: int = 5000, shards: int = 10):
        if k < 1:
            raise ValueError(f"`k` should be at least 1, got {k}.")
        super().__init__(max_rows=max_rows, shards=shards)
        self.k = k

    def value(self, statistics: Statistics) -> tuple[float, dict[str, Any]]:
        hits = self._hits(statistics)
        return float(hits.mean()), {"rows_kept": len(hits)}

    def leave_one_out(self, shards: Sequence[Statistics], total: Statistics) -> list[float]:
        # Each row was already predicted from the others: leaving out a shard leaves out its rows' verdicts.
        return means_without_each_shard(self._hits(total), shards)

    def _hits(self, statistics: Statistics) -> Tensor:
        features, labels = statistics["features"], statistics["labels"]
        if len(features) < 2:
            raise ValueError("Nearest neighbours need at least two rows.")
        neighbours = nearest_neighbours(features, min(self.k, len(features) - 1))
        if labels.ndim == 1 and not labels.is_floating_point():
            return (majority(labels[neighbours]) == labels).double()
        targets = labels.double().reshape(len(labels), -1)
        return explained(targets[neighbours].mean(dim=1), targets)
