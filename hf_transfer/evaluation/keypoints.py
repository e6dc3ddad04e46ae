"""Percentage of correct key points: those whose predicted place is near the true one.

    PCK_a = mean over seen points of 1[|x' - x| <= a],   |.| in shares of the picture's sides

`pck_05` is a = .05, `pck_10` a = .1; `mean_error` is the mean of |x' - x|. Yang and Ramanan, "Articulated Human
Detection with Flexible Mixtures of Parts", PAMI 2013, https://doi.org/10.1109/TPAMI.2012.261; a share of the picture's
side as in RegDA, https://huggingface.co/papers/2103.06175.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

KEYPOINT_METRICS = ("pck_05", "pck_10", "mean_error")


def keypoint_metrics(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`KEYPOINT_METRICS`; nothing where no point is seen.

    Args:
        predictions: [N, K, 2 or more], x and y first.
        labels: [N, K, 2], negative for a point that is not seen.
    """
    errors, seen = distances(predictions, labels)
    return shares_of(errors[seen]) if seen.any() else {}


def point_figures(predictions: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Name of a point that is seen in some picture -> its `KEYPOINT_METRICS`, and in how many.

    Args:
        predictions, labels: as of `keypoint_metrics`.
        names: of the K points.
    """
    errors, seen = distances(predictions, labels)
    return {
        name: {**shares_of(errors[seen[:, place], place]), "seen": int(seen[:, place].sum())}
        for place, name in enumerate(names)
        if seen[:, place].any()
    }


def distances(predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far every predicted point is from the true one, and whether that is seen, [N, K] each."""
    labels = np.asarray(labels, dtype=np.float64)
    errors = np.linalg.norm(np.asarray(predictions, dtype=np.float64)[..., :2] - labels, axis=-1)
    return errors, (labels >= 0).all(axis=-1)


def shares_of(errors: np.ndarray) -> dict[str, float]:
    """`KEYPOINT_METRICS` of distances."""
    shares = {f"pck_{round(100 * limit):02d}": float((errors <= limit).mean()) for limit in (0.05, 0.1)}
    return {**shares, "mean_error": float(errors.mean())}
