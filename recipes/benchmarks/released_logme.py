"""LogME as its authors released it: the fixed-point iteration of the JMLR version, compiled by numba.

    F (n x D) = U S V^T  through the decomposition of F^T F and U = F V / S,   sigma = S^2,   z = U^T y
    from alpha = beta = 1, at most eleven times and until t = alpha / beta moves by less than 0.1 %:
        gamma = sum sigma / (t + sigma)
        m = sum sigma z^2 / (t + sigma)^2,   r = sum z^2 / (1 + sigma / t)^2 + |y|^2 - |z|^2
        alpha = gamma / (m + 1e-5),   beta = (n - gamma) / (r + 1e-5)
    evidence = D/2 log alpha + n/2 log beta - 1/2 sum log(alpha + beta sigma) - beta/2 r - alpha/2 m - n/2 log 2 pi

Written anew from the paper as the measure of `hf_transfer.ranking.LogME`; right for n > D and features of full rank.
Paper: You et al., JMLR 2022, https://huggingface.co/papers/2110.10545
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def decompose(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors [n, D] and squared singular values [D], through the D x D matrix."""
    _, squares, right = np.linalg.svd(features.T @ features)
    kept = (squares > 1e-20).sum()
    squares = squares[:kept]
    return (features @ np.ascontiguousarray(right[:kept].T)) / np.sqrt(squares), squares


@njit(cache=True)
def fixed_point(squares: np.ndarray, coordinates: np.ndarray, outside: float, rows: int, size: int) -> float:
    """Evidence of one row for one target: squares sigma and coordinates z^2 [D], outside |y|^2 - |z|^2."""
    alpha, beta, length, misfit = 1.0, 1.0, 0.0, 0.0
    for _ in range(11):
        t = alpha / beta
        gamma = (squares / (t + squares)).sum()
        length = (squares * coordinates / (t + squares) ** 2).sum()
        misfit = (coordinates / (1 + squares / t) ** 2).sum() + outside
        alpha, beta = gamma / (length + 1e-5), (rows - gamma) / (misfit + 1e-5)
        if abs(alpha / beta - t) / t <= 1e-3:
            break
    evidence = size / 2 * np.log(alpha) + rows / 2 * np.log(beta) - np.log(alpha + beta * squares).sum() / 2
    return (evidence - beta / 2 * misfit - alpha / 2 * length - rows / 2 * np.log(2 * np.pi)) / rows


@njit(cache=True)
def mean_evidence(features: np.ndarray, labels: np.ndarray, classes: int) -> float:
    rows, size = features.shape
    left, squares = decompose(features)
    total = 0.0
    for label in range(classes):
        target = (labels == label).astype(np.float64)
        projected = left.T @ target
        coordinates = projected**2
        total += fixed_point(squares, coordinates, target.sum() - coordinates.sum(), rows, size)
    return total / classes


def released_logme(features: np.ndarray, labels: np.ndarray) -> float:
    """LogME of features [n, D] of any precision and class indices [n]."""
    return mean_evidence(features.astype(np.float64), labels, int(labels.max()) + 1)
