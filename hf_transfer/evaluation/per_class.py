"""Precision, recall and F1 of every class, and how many rows it has.

    precision_c = right_c / predicted_c,   recall_c = right_c / rows_c,   F1_c = 2 right_c / (predicted_c + rows_c)

One that is never predicted has precision 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from hf_transfer.core.task_loss import MULTI_LABEL, REGRESSION, SINGLE_LABEL, known_rows, predicted

FIGURES = ("precision", "recall", "f1", "rows")


def class_figures(
    logits: np.ndarray, labels: np.ndarray, problem_type: str, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Name of a class to its `FIGURES`; nothing for a regression or where no row has a label.

    Args:
        logits: [N, C].
        labels: [N] classes, -100 where unknown; or [N, C] of 0 and 1.
        problem_type: one of `hf_transfer.core.task_loss.PROBLEM_TYPES`.
        names: of the C classes.
    """
    labels = np.asarray(labels)
    known = known_rows(torch.as_tensor(labels)).numpy()
    if problem_type == REGRESSION or not known.any():
        return {}
    answers = predicted(torch.as_tensor(np.asarray(logits))[known], problem_type).numpy()
    labels = labels[known]
    if problem_type == MULTI_LABEL:
        answers, labels = answers.astype(int), (labels.reshape(answers.shape) > 0.5).astype(int)
        columns = [_figures(labels[:, index], answers[:, index], [1]) for index in range(len(names))]
        figures = np.concatenate(columns, axis=1)
    else:
        figures = _figures(labels, answers, list(range(len(names))))
    return {
        name: {**dict(zip(FIGURES, map(float, column))), "rows": int(column[-1])}
        for name, column in zip(names, figures.T, strict=True)
    }


def confusion_of(
    logits: np.ndarray, labels: np.ndarray, problem_type: str, names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Name of a class -> predicted class -> how many of its rows; nothing where a row may have several labels or none.

    Args:
        logits: [N, C].
        labels: [N] classes, -100 where unknown.
        problem_type: one of `hf_transfer.core.task_loss.PROBLEM_TYPES`.
        names: of the C classes.
    """
    labels = np.asarray(labels)
    known = known_rows(torch.as_tensor(labels)).numpy()
    if problem_type != SINGLE_LABEL or not known.any():
        return {}
    answers = predicted(torch.as_tensor(np.asarray(logits))[known], problem_type).numpy()
    counts = confusion_matrix(labels[known], answers, labels=list(range(len(names))))
    return {name: dict(zip(names, map(int, row), strict=True)) for name, row in zip(names, counts, strict=True)}


def _figures(labels: np.ndarray, answers: np.ndarray, classes: list[int]) -> np.ndarray:
    """[4, C]."""
    return np.stack(precision_recall_fscore_support(labels, answers, labels=classes, zero_division=0.0))
