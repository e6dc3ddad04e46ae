"""Gaussian kernels and the maximum mean discrepancy (MMD) made from them.

    k(a, b) = sum_m exp(-||a - b||^2 / (2 alpha_m s^2)),   s^2 = mean of ||z_i - z_j||^2 over all pairs, detached

Paper: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, https://jmlr.org/papers/v13/gretton12a.html
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MEAN_DISTANCE_SCALES = tuple(2.0**k for k in range(-3, 2))
"""alpha = 1/8, 1/4, 1/2, 1, 2: the bandwidths around the mean squared distance of DAN and JAN."""


def mean_squared_distance(rows: Tensor) -> Tensor:
    """Mean of ||z_i - z_j||^2 over all ordered pairs, detached, in linear time: 2 (mean ||z||^2 - ||mean z||^2).

    Args:
        rows: [N, D].
    """
    centred = rows.detach() - rows.detach().mean(dim=0)
    return 2.0 * centred.square().sum(dim=1).mean()


def gaussian_mixture(squared_distances: Tensor, bandwidths: Tensor | Sequence[float]) -> Tensor:
    """sum_m exp(-d^2 / (2 b_m)), of the shape of `squared_distances`; b_m are squared widths."""
    bandwidths = torch.as_tensor(bandwidths, dtype=squared_distances.dtype, device=squared_distances.device)
    # Identical rows have no spread: their distances are 0 and any width gives k = 1.
    bandwidths = bandwidths.clamp_min(torch.finfo(squared_distances.dtype).tiny)
    return torch.exp(-squared_distances.unsqueeze(-1) / (2.0 * bandwidths)).sum(dim=-1)


def pairwise_squared_distances(rows: Tensor) -> Tensor:
    """[N, D] -> [N, N], through inner products of the centred rows: exact up to rounding, never negative."""
    centred = rows - rows.mean(dim=0)
    squares = centred.square().sum(dim=1)
    return (squares.unsqueeze(1) + squares.unsqueeze(0) - 2.0 * centred @ centred.T).clamp_min(0.0)


def quadratic_mmd(kernel: Tensor, num_source: int, source_weights: Tensor | None = None) -> Tensor:
    """Unbiased estimate of MMD^2 from all pairs; may be slightly negative, and is 0 in expectation where P = Q.

        1/(n(n-1)) sum_{i != j} k(s_i, s_j) + 1/(m(m-1)) sum_{i != j} k(t_i, t_j) - 2 mean k(s_i, t_j)

    No row is compared with itself, whatever k(x, x) is. With n = m the last mean leaves i = j out too (equation 4 of
    the paper instead of 3), so that the same rows on both sides give exactly 0.

    Args:
        kernel: [n + m, n + m] between all rows, source rows first.
        num_source: n. Both n and m should be at least 2.
        source_weights: [n] or None for all ones; they are scaled to a mean of 1, and k(a, b) counts w_a w_b times.
    """
    if source_weights is not None:
        weights = torch.cat([with_mean_one(source_weights), kernel.new_ones(len(kernel) - num_source)])
        kernel = kernel * weights.outer(weights)
    within_source, within_target = kernel[:num_source, :num_source], kernel[num_source:, num_source:]
    between = kernel[:num_source, num_source:]
    source, target = _mean_off_diagonal(within_source), _mean_off_diagonal(within_target)
    same_size = between.shape[0] == between.shape[1]
    return source + target - 2.0 * (_mean_off_diagonal(between) if same_size else between.mean())


def _mean_off_diagonal(kernel: Tensor) -> Tensor:
    size = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (size * (size - 1))


def with_mean_one(weights: Tensor) -> Tensor:
    """Weights [n] >= 0 over their mean; zeros where all are 0."""
    return weights / weights.mean().clamp_min(torch.finfo(weights.dtype).tiny)


def linear_mmd(kernel_quadruples: Tensor, source_weights: Tensor | None = None) -> Tensor:
    """Unbiased estimate of MMD^2 in linear time: the mean of k(s, s') + k(t, t') - k(s, t') - k(s', t).

    Args:
        kernel_quadruples: [P, 4], the four kernel values of P disjoint quadruples (s, s', t, t') in that order.
        source_weights: [n] or None, as of `quadratic_mmd`, of the rows that the quadruples are made of.
    """
    if source_weights is not None:
        first, second = with_mean_one(source_weights)[: 2 * len(kernel_quadruples)].reshape(-1, 2).unbind(dim=1)
        kernel_quadruples = kernel_quadruples * torch.stack([first * second, torch.ones_like(first), first, second], 1)
    signs = kernel_quadruples.new_tensor([1.0, 1.0, -1.0, -1.0])
    return (kernel_quadruples @ signs).mean()


def quadruple_squared_distances(source: Tensor, target: Tensor) -> Tensor:
    """[P, 4] squared distances (ss', tt', st', s't) of consecutive disjoint rows; rows left over are dropped.

    Args:
        source: [n, D].
        target: [m, D]; P = min(n, m) // 2.
    """
    rows = min(len(source), len(target)) // 2 * 2
    s, s_next = source[0:rows:2], source[1:rows:2]
    t, t_next = target[0:rows:2], target[1:rows:2]
    pairs = ((s, s_next), (t, t_next), (s, t_next), (s_next, t))
    return torch.stack([(a - b).square().sum(dim=1) for a, b in pairs], dim=1)
