"""The maximum evidence of a Bayesian linear model, from second moments of its features and targets.

For each target column y = F w + noise, w ~ N(0, I / alpha), noise ~ N(0, I / beta), with t = alpha / beta:

    log N(y; 0, I / beta + F F^T / alpha)  ->  its maximum over alpha and beta, and the mean m of w given y there

`hf_transfer.ranking.scores.logme` says what is computed how; B-Tuning compares models by the means.

Paper: You et al., ICML 2021, https://huggingface.co/papers/2102.11005, and JMLR 2022.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Fits the blocks of matrix products in float64; a power of two would be slower by half.
COLUMNS_AT_ONCE = 96
GRID_POINTS = 256
NEWTON_STEPS = 60
LOG_T_TOLERANCE = 1e-11
# Natural logarithm of how far t may leave the spectrum: beyond, the evidence no longer changes in float64.
MARGIN = 25.0


@dataclass(frozen=True)
class Evidence:
    """Maximum evidence of every target column with something to explain.

    Shapes: columns [C'] indices of these columns; log_evidence, alpha, beta [C']; eigenvalues [r];
    eigenvectors [D, r]; posterior_means [C', D].
    """

    columns: Tensor
    log_evidence: Tensor
    alpha: Tensor
    beta: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor
    posterior_means: Tensor
    rows: int
    is_bounded: bool

    @property
    def score(self) -> float:
        """Mean over the columns of the evidence of one row."""
        return float(self.log_evidence.mean()) / self.rows

    def curvature(self) -> Tensor:
        """What the summed evidence loses, twice, for each unit of F^T F, as weights [D, D] of its lower triangle.

        K = sum over columns of (F^T F + t I)^-1 + beta m m^T,   <F^T F, K> = sum_{i > j} 2 K_ij G_ij + sum_i K_ii G_ii
        """
        volume = (1 / (self.eigenvalues[:, None] + self.alpha / self.beta)).sum(dim=1)
        weights = self.eigenvectors.new_zeros(len(self.eigenvectors), len(self.eigenvectors))
        add_gram(weights, (self.eigenvectors * volume.sqrt()).T)
        add_gram(weights, self.posterior_means * self.beta.sqrt()[:, None])
        weights.diagonal().mul_(0.5)
        return weights.tril_().mul_(2)


def maximum_evidence(gram: Tensor, cross: Tensor, energy: Tensor, rows: int) -> Evidence:
    """Evidence from sufficient statistics: gram = F^T F [D, D], cross = F^T Y [D, C], energy = sum Y^2 [C].

    Of `gram` the lower triangle is read.
    Columns that are zero everywhere (a class without rows) carry no evidence and are left out.

    Raises:
        ValueError: when every column is zero.
    """
    columns = energy.nonzero().flatten()
    if len(columns) == 0:
        raise ValueError("Every target column is zero: there is nothing to explain.")
    cross, energy = cross[:, columns], energy[columns]
    eigenvalues, eigenvectors = positive_spectrum(gram, rows)
    projected = eigenvectors.T @ cross
    coordinates = projected.square() / eigenvalues[:, None]
    residual = (energy - coordinates.sum(dim=0)).clamp(min=0)
    # A residual below rounding is an exact fit.
    is_exact = (residual < 1e-13 * math.sqrt(rows) * energy) | (len(eigenvalues) == rows)
    residual = torch.where(is_exact, 0, residual)
    is_bounded = len(eigenvalues) == rows or not bool(is_exact.any())
    log_t = maximise(eigenvalues, coordinates, residual, rows)
    t = log_t.exp()
    shrinkage = t / (eigenvalues[:, None] + t)
    quadratic = (coordinates * shrinkage).sum(dim=0) + residual
    constant = rows / 2 * (math.log(rows) - 1 - math.log(2 * math.pi))
    means = eigenvectors @ (projected / (eigenvalues[:, None] + t))
    return Evidence(
        columns=columns,
        log_evidence=constant - rows / 2 * quadratic.log() + shrinkage.log().sum(dim=0) / 2,
        alpha=t * rows / quadratic,
        beta=rows / quadratic,
        eigenvalues=eigenvalues,
        eigenvectors=eigenvectors,
        posterior_means=means.T,
        rows=rows,
        is_bounded=is_bounded,
    )


def positive_spectrum(gram: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues [r] of F^T F that are not zero up to rounding, at most n of them, and their vectors [D, r]."""
    eigenvalues, eigenvectors = torch.linalg.eigh(gram, UPLO="L")
    smallest = eigenvalues[-1].clamp(min=0) * max(rows, len(gram)) * torch.finfo(gram.dtype).eps
    # They are in ascending order.
    first = max(int((eigenvalues <= smallest).sum()), len(gram) - rows)
    return eigenvalues[first:], eigenvectors[:, first:]


def maximise(eigenvalues: Tensor, coordinates: Tensor, residual: Tensor, rows: int) -> Tensor:
    """log t [C] of the maximum uphill of t = 1; eigenvalues [r], coordinates z^2 [r, C], residual [C].

    Newton steps on the slope of the evidence in log t, kept inside a shrinking bracket by bisection.
    """
    if len(eigenvalues) == 0:
        return torch.zeros_like(residual)
    left, right = bracket(eigenvalues, coordinates, residual, rows)
    log_t = (left + right) / 2
    for _ in range(NEWTON_STEPS):
        t = log_t.exp()
        fitted = 1 / (1 + t / eigenvalues[:, None])
        shrinkage = fitted * (t / eigenvalues[:, None])
        kept = coordinates * shrinkage
        value = kept.sum(dim=0) + residual
        slopes = kept * fitted
        first = slopes.sum(dim=0) / value
        second = (slopes * (fitted - shrinkage)).sum(dim=0) / value
        slope = fitted.sum(dim=0) / 2 - rows / 2 * first
        curvature = -(fitted * shrinkage).sum(dim=0) / 2 - rows / 2 * (second - first.square())
        left, right = torch.where(slope > 0, log_t, left), torch.where(slope > 0, right, log_t)
        step = slope / curvature
        # A step within rounding of the maximum may point out of the bracket.
        is_there = step.abs() < LOG_T_TOLERANCE
        is_inside = (curvature < 0) & (log_t - step > left) & (log_t - step < right)
        log_t = torch.where(is_inside | is_there, log_t - step, (left + right) / 2)
        if is_there.all():
            break
    return log_t


def bracket(eigenvalues: Tensor, coordinates: Tensor, residual: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Ends [C], in log t, of the grid cell with the first maximum uphill of t = 1, or of the last cell on that side.

    The evidence rises with log t where  gamma Q > n sum_i z_i^2 w_i (1 - w_i),  gamma = sum_i (1 - w_i).
    """
    low = min(math.log(float(eigenvalues.min())) - MARGIN, -1.0)
    high = max(math.log(float(eigenvalues.max())) + MARGIN, 1.0)
    step = (high - low) / GRID_POINTS
    start, count = math.ceil(-low / step), math.ceil(-low / step) + math.ceil(high / step)
    grid = (torch.arange(count + 1) - start).to(residual) * step
    ratio = grid.exp()[:, None] / eigenvalues
    fitted = 1 / (1 + ratio)
    shrinkage = fitted * ratio
    quadratic = shrinkage @ coordinates + residual
    is_rising = fitted.sum(dim=1, keepdim=True) * quadratic > rows * ((shrinkage * fitted) @ coordinates)
    is_maximum = is_rising[:-1] & ~is_rising[1:]
    cells = torch.arange(count, device=residual.device)[:, None]
    nearest_above = torch.where(is_maximum & (cells >= start), cells, count - 1).amin(dim=0)
    nearest_below = torch.where(is_maximum & (cells < start), cells, 0).amax(dim=0)
    cell = torch.where(is_rising[start], nearest_above, nearest_below)
    return grid[cell], grid[cell + 1]


def add_gram(gram: Tensor, features: Tensor) -> None:
    """Add F^T F to the lower triangle of `gram`, some columns at a time: little more than half of the products."""
    for start in range(0, len(gram), COLUMNS_AT_ONCE):
        stop = start + COLUMNS_AT_ONCE
        gram[start:, start:stop].addmm_(features[:, start:].T, features[:, start:stop])


class SecondMoments:
    """Sums over rows that arrive batch by batch, from which the evidence follows.

    Args:
        width: D, of the features.
        columns: C, of the targets.
    """

    def __init__(self, width: int, columns: int):
        self.gram = torch.zeros(width, width, dtype=torch.float64)
        self.cross = torch.zeros(width, columns, dtype=torch.float64)
        self.energy = torch.zeros(columns, dtype=torch.float64)
        self.rows = 0

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Some more rows: features [B, D] and targets [B, C]."""
        features, targets = features.double().cpu(), targets.double().cpu()
        add_gram(self.gram, features)
        self.cross += features.T @ targets
        self.energy += targets.square().sum(dim=0)
        self.rows += len(features)

    def evidence(self) -> Evidence:
        """The maximum evidence of all rows so far."""
        return maximum_evidence(self.gram, self.cross, self.energy, self.rows)
