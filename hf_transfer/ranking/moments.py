"""Second moments of features and targets: what every linear score needs of a dataset.

F^T F  [D, D],   F^T Y  [D, C],   sum_n Y^2  [C],   n
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.ranking.score import Statistics, TransferabilityScore, target_columns


def second_moments(features: Tensor, labels: Tensor) -> Statistics:
    """Sums over the rows of features [B, D] and labels ([B] or [B, C]), all in float64."""
    targets = target_columns(labels).to(features.device)
    return {
        "gram": features.T @ features,
        "cross": features.T @ targets,
        "energy": targets.square().sum(dim=0),
        "rows": features.new_tensor([len(features)]),
    }


class MomentScore(TransferabilityScore):
    """A score whose statistics are the second moments."""

    def statistics(self, features: Tensor, labels: Tensor, rows: Tensor) -> Statistics:
        return second_moments(features, labels)
