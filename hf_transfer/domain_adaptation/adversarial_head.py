"""The adversarial hypothesis f' of the disparity discrepancies."""

from __future__ import annotations

from torch import nn


class AdversarialHead(nn.Sequential):
    """D -> hidden -> ReLU -> dropout -> C, beside the model's own head and on the same features.

    Args:
        feature_dim: D.
        hidden_size: width of the hidden layer.
        num_labels: C.
        dropout: share of hidden units dropped in training.

    Shape: [B, D] -> [B, C].
    """

    def __init__(self, feature_dim: int, hidden_size: int, num_labels: int, dropout: float):
        super().__init__(
            nn.Linear(feature_dim, hidden_size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden_size, num_labels)
        )
