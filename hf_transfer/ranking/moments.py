"""Second moments of features and targets: what every linear score needs of a dataset.

F^T F  [D, D],   F^T Y  [D, C],   sum_n Y^2  [C],   n

Of the symmetric F^T F only the lower triangle counts, see `symmetric`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transfer.functional.evidence import add_gram as add_gram
from hf_transfer.ranking.score import Statistics, TransferabilityScore, sum_with_padding, target_columns


def second_moments(features: Tensor, labels: Tensor) -> Statistics:
    """Sums over the rows of features [B, D] in float64 and labels ([B] or [B, C])."""
    size = features.shape[1]
    shapes = {"gram": (size, size), "cross": (size, 0), "energy": (0,), "rows": (1,)}
    return add_moments({name: features.new_zeros(shape) for name, shape in shapes.items()}, features, labels)


def add_moments(moments: Statistics, features: Tensor, labels: Tensor) -> Statistics:
    """The moments of some more rows; the tensors of `moments` are changed in place, or replaced by wider ones."""
    add_gram(moments["gram"], features)
    moments["rows"] += len(features)
    cross, energy = moments["cross"], moments["energy"]
    if labels.ndim == 1 and not labels.is_floating_point():
        # For a class, the sum of its features and how many there are: its one-hot column is never made.
        labels = labels.long().to(features.device)
        counts = torch.bincount(labels, minlength=len(energy))
        more = len(counts) - len(energy)
        sums = F.pad(cross.T, (0, 0, 0, more)) if more else cross.T
        cross, energy = sums.index_add_(0, labels, features).T, F.pad(energy, (0, more)) + counts
    else:
        targets = target_columns(labels).to(features.device)
        cross = sum_with_padding(cross, features.T @ targets)
        energy = sum_with_padding(energy, targets.square().sum(dim=0))
    return {**moments, "cross": cross, "energy": energy}


def symmetric(gram: Tensor) -> Tensor:
    """The whole matrix of which `gram` holds the lower triangle."""
    return gram.tril() + gram.tril(-1).T


class MomentScore(TransferabilityScore):
    """A score whose statistics are the second moments, and sums of a subclass over the features."""

    def sums(self, features: Tensor) -> Statistics:
        """Further sums over the rows of features [B, D]."""
        return {}

    def statistics(self, features: Tensor, labels: Tensor, rows: Tensor) -> Statistics:
        return {**second_moments(features, labels), **self.sums(features)}

    def sum_of(self, parts: Sequence[Statistics]) -> Statistics:
        first, *others = parts
        total = {name: value.clone() for name, value in first.items()}
        for part in others:
            for name, value in part.items():
                if value.shape == total[name].shape:
                    total[name] += value.to(total[name].device)
                else:
                    total[name] = sum_with_padding(total[name], value)
        return total

    def _add_rows(self, index: int, features: Tensor, labels: Tensor, rows: Tensor) -> None:
        before = self.shards[index]
        if before is None:
            return super()._add_rows(index, features, labels, rows)
        # In place: a new D x D matrix for every batch would cost more than the products of a small one.
        sums = {name: before[name] + more for name, more in self.sums(features).items()}
        self.shards[index] = {**add_moments(before, features, labels), **sums}
