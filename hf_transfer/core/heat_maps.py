"""Heat maps of key points: targets, losses, and the places that maps tell.

Places are shares of the sides: the middle of the first column of W lies at 1 / (2 W). A point that is not seen, or not
known, has negative coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEAR = 2
"""Places around the best one that share in where a point is."""


def gaussian_maps(points: Tensor, size: torch.Size | tuple[int, int], sigma: float) -> Tensor:
    """For each point a distribution over the places of a map, Gaussian around it: [..., 2] -> [..., H, W], sum 1.

    Args:
        points: x and y as shares of the sides.
        size: H and W.
        sigma: standard deviation in places.
    """
    height, width = size
    columns = torch.arange(width, device=points.device) + 0.5
    rows = torch.arange(height, device=points.device) + 0.5
    across = (columns - points[..., :1].float() * width).square()  # [..., W]
    down = (rows - points[..., 1:].float() * height).square()  # [..., H]
    logits = -(down.unsqueeze(-1) + across.unsqueeze(-2)) / (2 * sigma**2)
    return logits.flatten(-2).softmax(dim=-1).reshape(logits.shape)


def seen_points(points: Tensor) -> Tensor:
    """Which points are known and seen, [...] bool of [..., 2]."""
    return (points >= 0).all(dim=-1)


def heat_map_divergence(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of the softmax of maps [..., H, W] with target distributions of the same shape, [...]."""
    return -(targets * scores.float().flatten(-2).log_softmax(dim=-1).reshape(scores.shape)).sum(dim=(-2, -1))


def heat_map_loss(scores: Tensor, points: Tensor, sigma: float) -> Tensor:
    """Mean cross entropy of the maps [B, K, H, W] of the points [B, K, 2] that are seen; 0 where none is."""
    seen = seen_points(points)
    losses = heat_map_divergence(scores, gaussian_maps(points, scores.shape[-2:], sigma))
    return (losses * seen).sum() / seen.sum().clamp(min=1)


def expected_places(scores: Tensor) -> Tensor:
    """The mean place under the softmax of maps, [..., H, W] -> [..., 2]: x and y as shares, with a gradient."""
    height, width = scores.shape[-2:]
    shares = scores.float().flatten(-2).softmax(dim=-1).reshape(scores.shape)
    columns = (torch.arange(width, device=scores.device) + 0.5) / width
    rows = (torch.arange(height, device=scores.device) + 0.5) / height
    return torch.stack([(shares.sum(dim=-2) * columns).sum(dim=-1), (shares.sum(dim=-1) * rows).sum(dim=-1)], dim=-1)


def likeliest_places(scores: Tensor) -> Tensor:
    """The best place of maps [..., H, W] and its probability: [..., 3] of x, y (shares) and probability.

    The place is the mean over the five by five places around the best one.
    """
    height, width = scores.shape[-2:]
    shares = scores.float().flatten(-2).softmax(dim=-1)
    best = shares.argmax(dim=-1)
    row, column = best // width, best % width
    rows, columns = torch.arange(height, device=scores.device), torch.arange(width, device=scores.device)
    near_row, near_column = (rows - row.unsqueeze(-1)).abs() <= NEAR, (columns - column.unsqueeze(-1)).abs() <= NEAR
    around = shares.reshape(scores.shape) * (near_row.unsqueeze(-1) & near_column.unsqueeze(-2))
    total = around.sum(dim=(-2, -1)).clamp(min=torch.finfo(around.dtype).tiny)
    x = (around.sum(dim=-2) * (columns + 0.5) / width).sum(dim=-1) / total
    y = (around.sum(dim=-1) * (rows + 0.5) / height).sum(dim=-1) / total
    return torch.stack([x, y, shares.amax(dim=-1)], dim=-1)
