"""Errors of forecasts.

    mean_squared_error   mean (z - y)^2
    mean_absolute_error  mean |z - y|
    mean_absolute_scaled_error   mean over rows and channels of  mean_h |z_h - y_h| / mean_t |x_t - x_{t-1}|

x is the past of a row: a scaled error of 1 is that of saying the last value again, one step ahead. Channels of a past
that never changes have no part in it. Paper: Hyndman & Koehler 2006, https://doi.org/10.1016/j.ijforecast.2006.03.001
"""

from __future__ import annotations

from typing import Any

import numpy as np

PADDING = -100


def forecast_metrics(predictions: Any, labels: Any, past: Any = None) -> dict[str, float]:
    """The errors by name; the scaled one where the past is given and changes.

    Args:
        predictions: [N, H * C].
        labels: likewise, -100 throughout in rows without any.
        past: [N, L, C].
    """
    answers, labels = (np.asarray(values, dtype=np.float64) for values in (predictions, labels))
    known = ~(labels.reshape(len(labels), -1) == PADDING).all(axis=1)
    if not known.any():
        return {}
    errors = answers.reshape(labels.shape)[known] - labels[known]
    found = {
        "mean_squared_error": float(np.square(errors).mean()),
        "mean_absolute_error": float(np.abs(errors).mean()),
    }
    if past is None:
        return found
    past = np.asarray(past, dtype=np.float64)[known]
    of_channel = np.abs(errors).reshape(len(errors), -1, past.shape[2]).mean(axis=1)
    scale = np.abs(np.diff(past, axis=1)).mean(axis=1)
    moves = scale > 0
    if moves.any():
        found["mean_absolute_scaled_error"] = float((of_channel[moves] / scale[moves]).mean())
    return found
