"""Regularised learning under label shift: black-box shift estimation that stays near no shift where little is known.

    w = 1 + theta,   theta = argmin over theta >= -1 of ||C theta - (mu - C 1)|| + alpha rho ||theta||
    rho = 3 (2 log(2C/delta) / (3n) + sqrt(2 log(2C/delta) / n))

C, mu: as of `bbse`; n: held-out source rows. Neither norm is squared. With few rows, classes that are never predicted
or answers that hardly tell classes apart, the weights shrink towards 1 in those directions alone.

The minimum lies on the path of min ||C w - mu||^2 + lambda ||w - 1||^2, w >= 0, at the one lambda where
lambda ||theta|| = alpha rho ||C theta - (mu - C 1)||, because both norms are traded for each other along the path at a
rate that only grows. It is found by bisection.

Paper: Azizzadenesheli et al., "Regularized Learning for Domain Adaptation under Label Shifts", ICLR 2019,
https://huggingface.co/papers/1903.09734. alpha = .01 and delta = .05 as in its released code; the paper further
multiplies theta by a gamma <= 1, which that code leaves at 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import brentq, nnls
from torch import Tensor

from hf_transfer.domain_adaptation.bbse import as_shares
from hf_transfer.functional.keyword_checks import require_positive

RIDGES = (-14.0, 6.0)
"""Powers of 10 between which lambda is looked for: entries of C are at most 1."""


def deviation_bound(classes: int, rows: float, delta: float = 0.05) -> float:
    """rho: a bound, with probability 1 - delta, of how far C lies from its expectation.

    Args:
        classes: C.
        rows: n, held-out source rows.
        delta: in (0, 1).
    """
    logarithm = math.log(2 * classes / delta)
    return 3 * (2 * logarithm / (3 * rows) + math.sqrt(2 * logarithm / rows))


def rlls_weights(confusion: Tensor, predictions: Tensor, alpha: float = 0.01, delta: float = 0.05) -> Tensor:
    """w [C] >= 0 in float64: how many times as frequent each class is in the target as in the source.

    A class without source rows has the weight 1.

    Args:
        confusion: [C, C] counts of held-out source rows, what is predicted in rows, labels in columns.
        predictions: [C] counts of target rows.
        alpha: factor of the bound; 0.01 regularises little.
        delta: of the bound.

    Raises:
        ValueError: as `as_shares`, or a keyword is out of its range.
    """
    return ridge_weights(confusion, predictions, matching_ridge(confusion, predictions, alpha, delta))


def ridge_weights(confusion: Tensor, predictions: Tensor, ridge: float) -> Tensor:
    """argmin over w >= 0 of ||C w - mu||^2 + ridge ||w - 1||^2, [C]; all ones for an infinite ridge.

    Args:
        confusion, predictions: as of `rlls_weights`.
        ridge: lambda.
    """
    joint, target = (values.numpy(force=True) for values in as_shares(confusion, predictions))
    return torch.from_numpy(_weights_at(joint, target, ridge))


def _weights_at(joint: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    classes = len(target)
    if math.isinf(ridge):
        return np.ones(classes)
    # a least-squares problem in C itself: C^T C would square its condition
    rows = np.concatenate([joint, math.sqrt(ridge) * np.eye(classes)])
    wanted = np.concatenate([target, math.sqrt(ridge) * np.ones(classes)])
    free = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return free if (free >= 0).all() else nnls(rows, wanted)[0]


def matching_ridge(confusion: Tensor, predictions: Tensor, alpha: float = 0.01, delta: float = 0.05) -> float:
    """The lambda whose `ridge_weights` are `rlls_weights`; infinite where these are all 1. Arguments as of it."""
    require_positive(alpha=alpha)
    if not 0 < delta < 1:
        raise ValueError(f"`delta` should be in (0, 1), got {delta}.")
    joint, target = (values.numpy(force=True) for values in as_shares(confusion, predictions))
    penalty = alpha * deviation_bound(len(target), float(confusion.sum()), delta)

    def excess(power: float) -> float:
        theta = _weights_at(joint, target, 10**power) - 1
        residual = np.linalg.norm(joint @ (1 + theta) - target)
        return 10**power * np.linalg.norm(theta) - penalty * residual

    if excess(RIDGES[0]) >= 0:
        return 10 ** RIDGES[0]  # the residual can be 0, and giving that up would cost more than it saves
    return 10 ** brentq(excess, *RIDGES, xtol=1e-4) if excess(RIDGES[1]) > 0 else math.inf


rlls_weights.paper = "1903.09734"
