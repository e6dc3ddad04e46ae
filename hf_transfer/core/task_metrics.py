"""The metrics of a problem type, of the rows that have a label.

    single_label_classification  accuracy = mean_i 1[argmax z_i = y_i]; macro F1
    multi_label_classification   exact_match = mean_i 1[all labels of row i right], at probability .5; micro, macro F1
    regression                   mean squared and absolute error; r_squared = 1 - sum (z - y)^2 / sum (y - mean y)^2

A class that neither the labels nor the predictions name has no part in the macro F1 of single labels; one that is
never right counts 0.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import f1_score

from hf_transfer.core.task_loss import MULTI_LABEL, REGRESSION, SINGLE_LABEL, known_rows, predicted

METRICS = {
    SINGLE_LABEL: ("accuracy", "macro_f1"),
    MULTI_LABEL: ("exact_match", "micro_f1", "macro_f1"),
    REGRESSION: ("mean_squared_error", "mean_absolute_error", "r_squared"),
}
"""Problem type -> its metrics, the usual one first."""


def task_metrics(logits: np.ndarray, labels: np.ndarray, problem_type: str) -> dict[str, float]:
    """Every metric of the problem type by name; none where no row has a label.

    Args:
        logits: [N, C].
        labels: [N] or [N, C], -100 where unknown.
        problem_type: one of `PROBLEM_TYPES`.
    """
    labels = np.asarray(labels)
    known = known_rows(torch.as_tensor(labels)).numpy()
    if not known.any():
        return {}
    answers = predicted(torch.as_tensor(np.asarray(logits))[known], problem_type).numpy()
    return _MEASURES[problem_type](answers, labels[known])


def _of_classes(answers: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {"accuracy": float((answers == labels).mean()), "macro_f1": _f1(answers, labels, "macro")}


def _of_several_labels(answers: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    holds = labels.reshape(answers.shape) > 0.5
    found = {"exact_match": float((answers.astype(bool) == holds).all(axis=1).mean())}
    return found | {f"{kind}_f1": _f1(answers, holds.astype(int), kind) for kind in ("micro", "macro")}


def _of_numbers(answers: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    labels = labels.astype(np.float64)
    errors = answers.astype(np.float64).reshape(labels.shape) - labels
    spread = np.square(labels - labels.mean(axis=0)).sum()
    return {
        "mean_squared_error": float(np.square(errors).mean()),
        "mean_absolute_error": float(np.abs(errors).mean()),
        "r_squared": float(1 - np.square(errors).sum() / spread) if spread else 0.0,
    }


def _f1(answers: np.ndarray, labels: np.ndarray, average: str) -> float:
    if answers.ndim == 2 and answers.shape[1] == 1:  # scikit-learn takes one column for two classes
        answers, labels, average = answers[:, 0], labels[:, 0], "binary"
    return float(f1_score(labels, answers, average=average, zero_division=0.0))


_MEASURES = {SINGLE_LABEL: _of_classes, MULTI_LABEL: _of_several_labels, REGRESSION: _of_numbers}
