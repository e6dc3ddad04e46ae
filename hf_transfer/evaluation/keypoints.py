"""Percentage of correct key points: those whose predicted place is near the true one.

    PCK_a = mean over seen points of 1[|x' - x| <= a],   |.| in shares of the picture's sides

`pck_05` is a = .05, `pck_10` a = .1; `mean_error` is the mean of |x' - x|. Yang and Ramanan, "Articulated Human
Detection with Flexible Mixtures of Parts", PAMI 2013, https://doi.org/10.1109/TPAMI.2012.261; a share of the picture's
side as in RegDA, https://huggingface.co/papers/2103.06175.
"""

from __future__ import annotations

import numpy as np

KEYPOINT_METRICS = ("pck_05", "pck_10", "mean_error")


def keypoint_metrics(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`KEYPOINT_METRICS`; nothing where no point is seen.

    Args:
        predictions: [N, K, 2 or more], x and y first.
        labels: [N, K, 2], negative for a point that is not seen.
    """
    labels = np.asarray(labels, dtype=np.float64)
    seen = (labels >= 0).all(axis=-1)
    if not seen.any():
        return {}
    errors = np.linalg.norm(np.asarray(predictions, dtype=np.float64)[..., :2] - labels, axis=-1)[seen]
    shares = {f"pck_{round(100 * limit):02d}": float((errors <= limit).mean()) for limit in (0.05, 0.1)}
    return {**shares, "mean_error": float(errors.mean())}
