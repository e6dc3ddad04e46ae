"""Mean average precision of boxes, as COCO measures it.

    AP_{c,t} = 1/101 sum_{r in {0, .01, ..., 1}} max_{recall' >= r} precision(recall'),   mAP = mean over c and t

The boxes of class c in all pictures go through in the order of their scores. One is right where its IoU with a true
box of its picture, not yet taken, is at least t; of several the one with the largest IoU is taken. t = .5, .55, ...,
.95; at most `MOST_BOXES` of a picture count. Classes without a true box have no part in the mean.

Lin et al., "Microsoft COCO", ECCV 2014, https://huggingface.co/papers/1405.0312; thresholds, the 101 recalls and the
100 boxes are those of its evaluation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_BOXES = 100
DETECTION_METRICS = ("map", "map_50", "map_75")
CLASS_FIGURES = ("ap", "ap_50", "ap_75")


@dataclass(frozen=True)
class Boxes:
    """Of one picture.

    Args:
        corners: [m, 4], left, top, right and bottom, in any unit.
        classes: [m].
        scores: [m]; None for true boxes.
    """

    corners: np.ndarray
    classes: np.ndarray
    scores: np.ndarray | None = None


def mean_average_precision(predictions: Sequence[Boxes], references: Sequence[Boxes]) -> dict[str, float]:
    """`DETECTION_METRICS`: over all thresholds, at .5 and at .75; nothing where there is no true box."""
    precisions = [class_precisions(predictions, references, kind) for kind in counts_of(references)]
    return dict(zip(DETECTION_METRICS, shown_precisions(np.mean(precisions, axis=0)))) if precisions else {}


def class_figures(
    predictions: Sequence[Boxes], references: Sequence[Boxes], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Name of a class that has a true box -> its average precisions, as `DETECTION_METRICS`, and how many boxes."""
    return {
        names[kind]: {
            **dict(zip(CLASS_FIGURES, shown_precisions(class_precisions(predictions, references, kind)))),
            "boxes": count,
        }
        for kind, count in counts_of(references).items()
    }


def counts_of(references: Sequence[Boxes]) -> dict[int, int]:
    """Class -> its true boxes, of those that have any, in their order."""
    return dict(sorted(Counter(int(one) for boxes in references for one in boxes.classes).items()))


def shown_precisions(precisions: np.ndarray) -> tuple[float, float, float]:
    """Of precisions [T] at all thresholds their mean, and those at .5 and .75."""
    return float(precisions.mean()), float(precisions[0]), float(precisions[5])


def class_precisions(predictions: Sequence[Boxes], references: Sequence[Boxes], kind: int) -> np.ndarray:
    """AP of one class at every threshold, [T]."""
    scores, right, count = [], [], 0
    for predicted, true in zip(predictions, references, strict=True):
        theirs = true.corners[true.classes == kind]
        own = predicted.classes == kind
        order = np.argsort(-predicted.scores[own], kind="stable")[:MOST_BOXES]
        scores.append(predicted.scores[own][order])
        right.append(matches(predicted.corners[own][order], theirs))
        count += len(theirs)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hits = np.concatenate(right, axis=1)[:, order]
    return np.array([interpolated_precision(one, count) for one in hits])


def matches(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Which boxes [P, 4], best score first, are right at every threshold, [T, P] bool.

    Args:
        predicted: corners.
        true: corners [M, 4].
    """
    found = np.zeros((len(THRESHOLDS), len(predicted)), dtype=bool)
    if not len(true):
        return found
    overlaps = pairwise_iou(predicted, true)
    for row, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(true), dtype=bool)
        for place, overlap in enumerate(overlaps):
            best = int(np.where(free, overlap, -1.0).argmax())
            if free[best] and overlap[best] >= threshold:
                found[row, place], free[best] = True, False
    return found


def pairwise_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of all pairs of corners [P, 4] and [M, 4], [P, M]."""
    upper = np.maximum(first[:, None, :2], second[None, :, :2])
    lower = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(lower - upper, 0, None).prod(axis=2)
    areas = [np.clip(one[:, 2:] - one[:, :2], 0, None).prod(axis=1) for one in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)


def interpolated_precision(hits: np.ndarray, count: int) -> float:
    """The mean over `RECALLS` of the best precision at that recall or a larger one.

    Args:
        hits: [P] bool, best score first.
        count: of the true boxes.
    """
    right = np.cumsum(hits)
    recall, precision = right / count, right / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    return float(np.concatenate([precision, [0.0]])[np.minimum(places, len(precision))].mean())


def corners_of(boxes: np.ndarray) -> np.ndarray:
    """Boxes [..., 4] given by middle, width and height as left, top, right and bottom."""
    middle, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([middle - half, middle + half], axis=-1)
