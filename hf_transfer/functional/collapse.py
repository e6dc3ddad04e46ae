"""Gauges of collapse: whether the features of different rows still differ, and in how many directions.

    rank_me = exp(-sum_k p_k ln p_k),   p_k = s_k / sum_j s_j + eps,   s the singular values of the features [N, D]
    channel_spread = mean_d std_n( z_nd / |z_n| )

rank_me is 1 where all features lie on one line and at most min(N, D). channel_spread is 0 where all rows have the same
direction, and 1 / sqrt(D) where directions are evenly distributed.

Papers: Garrido et al., "RankMe", ICML 2023, https://huggingface.co/papers/2210.02885, with its eps = 1e-7; Chen and
He, "Exploring Simple Siamese Representation Learning", CVPR 2021, https://huggingface.co/papers/2011.10566.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-7


def rank_me(features: Tensor) -> Tensor:
    """The effective rank of features [N, D], a scalar in [1, min(N, D)] but for eps; 1 where all are 0.

    Raises:
        ValueError: they are not [N, D] with at least one row.
    """
    _check(features)
    values = torch.linalg.svdvals(features.float())
    shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny) + EPSILON
    return torch.exp(-(shares * shares.log()).sum())


def channel_spread(features: Tensor) -> Tensor:
    """The mean over the channels of the deviation of directions z / |z| over the rows of z [N, D], a scalar.

    Raises:
        ValueError: they are not [N, D] with at least one row.
    """
    _check(features)
    return F.normalize(features.float(), dim=1).std(dim=0, correction=0).mean()


def _check(features: Tensor) -> None:
    if features.ndim != 2 or not len(features):
        raise ValueError(f"`features` should be [N, D] with at least one row, got {list(features.shape)}.")
