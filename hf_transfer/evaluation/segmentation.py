"""Metrics of semantic segmentation from counts of pixels: mean intersection over union and accuracies.

    IoU_c = n_cc / (sum_j n_cj + sum_i n_ic - n_cc),   mean IoU over the classes that are there or predicted

n_ij: pixels of class i that are predicted as j, over all pictures; pixels without a class do not count. Names and
values are those of the module `mean_iou` of `evaluate`, but counts are joined before they are divided.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SEGMENTATION_METRICS = ("mean_iou", "mean_accuracy", "overall_accuracy")


def confusions(logits: Tensor, labels: Tensor) -> Tensor:
    """Counts n_ij of every picture, [B, C, C]; logits are enlarged to the maps of labels, bilinearly.

    Args:
        logits: [B, C, h, w].
        labels: [B, H, W]; what is no class (negative, or C and above) does not count.
    """
    classes = logits.shape[1]
    larger = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    answers = larger.argmax(dim=1)
    return torch.stack([confusion(answer, label, classes) for answer, label in zip(answers, labels, strict=True)])


def confusion(answers: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts n_ij, [C, C], of predicted classes and labels of the same shape."""
    known = (labels >= 0) & (labels < classes)
    places = labels[known] * classes + answers[known]
    return torch.bincount(places, minlength=classes * classes).reshape(classes, classes)


def segmentation_metrics(counts: np.ndarray) -> dict[str, float]:
    """`SEGMENTATION_METRICS` of counts n_ij [C, C]; nothing where no pixel has a class."""
    counts = np.asarray(counts, dtype=np.float64)
    right, labelled, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    if not labelled.sum():
        return {}
    union, there = labelled + predicted - right, labelled > 0
    return {
        "mean_iou": float((right / np.maximum(union, 1))[union > 0].mean()),
        "mean_accuracy": float((right[there] / labelled[there]).mean()),
        "overall_accuracy": float(right.sum() / labelled.sum()),
    }


def pixel_figures(counts: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Name of a class -> precision, recall and F1 of its pixels, and how many it has in `rows`."""
    counts = np.asarray(counts, dtype=np.float64)
    right, labelled, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    precision, recall = right / np.maximum(predicted, 1), right / np.maximum(labelled, 1)
    f1 = 2 * right / np.maximum(predicted + labelled, 1)
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "rows": int(n)}
        for name, p, r, f, n in zip(names, precision, recall, f1, labelled, strict=True)
    }
