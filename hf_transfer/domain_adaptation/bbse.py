"""Black-box shift estimation: how often each class occurs in the target, from a classifier's answers alone.

    w = C^-1 mu,   q_j = w_j p_j
    C_ij: share of the held-out source rows that are predicted as i and labelled j,   p_j = sum_i C_ij
    mu_i: share of the target rows that are predicted as i

No target label is read. It is right where rows of a class look alike in both domains, p(x | y) = q(x | y), so that a
class is taken for another as often in the target as in the source; where the rows look different too, it is as far off
as the classifier's mistakes on the target are others than on the source. Weights below 0 are set to 0, as the paper
does. `rlls` is the form for few rows.

Paper: Lipton et al., "Detecting and Correcting for Label Shift with Black Box Predictors", ICML 2018,
https://huggingface.co/papers/1802.03916
"""

from __future__ import annotations

import torch
from torch import Tensor

SINGULAR = 1e-6
"""Below it the smallest singular value of P(predicted | label) is 0 up to rounding."""


def confusion_of(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Rows of class j that are predicted as i, [C, C] counts in float64.

    Args:
        predicted: [N] classes.
        labels: [N] classes.
        classes: C.
    """
    places = predicted.long() * classes + labels.long()
    return torch.bincount(places, minlength=classes * classes).double().reshape(classes, classes)


def as_shares(confusion: Tensor, predictions: Tensor) -> tuple[Tensor, Tensor]:
    """C [C, C] and mu [C] in float64, each of which sums to 1.

    Args:
        confusion: [C, C] counts, or sums of probabilities, of source rows; what is predicted in rows, labels in
            columns.
        predictions: [C] of target rows, likewise.

    Raises:
        ValueError: they have other shapes, a negative or infinite entry, or no rows.
    """
    classes = len(predictions)
    if tuple(confusion.shape) != (classes, classes):
        raise ValueError(
            f"`confusion` should be [{classes}, {classes}] for {classes} classes, got {list(confusion.shape)}."
        )
    for name, values in (("confusion", confusion), ("predictions", predictions)):
        if not values.isfinite().all() or (values < 0).any() or values.sum() == 0:
            raise ValueError(f"`{name}` should count rows: no entry below 0, all finite, and at least one row.")
    return confusion.double() / confusion.double().sum(), predictions.double() / predictions.double().sum()


def separation(confusion: Tensor) -> float:
    """How well the answers tell the classes apart: the smallest singular value of P(predicted | label), in [0, 1].

    It is 1 of a classifier that makes no mistake, and 0 where some mixture of classes looks like another one. Errors
    of the predictions' shares come into the weights divided by about as much. Classes without rows do not count.

    Args:
        confusion: [C, C], as `as_shares` takes it.
    """
    columns = confusion.double().sum(dim=0)
    conditional = confusion.double()[:, columns > 0] / columns[columns > 0]
    return float(torch.linalg.svdvals(conditional).min()) if conditional.numel() else 0.0


def bbse_weights(confusion: Tensor, predictions: Tensor) -> Tensor:
    """w [C] >= 0 in float64: how many times as frequent each class is in the target as in the source.

    Args:
        confusion: [C, C] counts of held-out source rows, what is predicted in rows, labels in columns; of hard answers
            or sums of probabilities.
        predictions: [C] counts of target rows, likewise.

    Raises:
        ValueError: as `as_shares`; a class has no source rows; or the answers do not tell the classes apart.
    """
    joint, target = as_shares(confusion, predictions)
    missing = (joint.sum(dim=0) == 0).nonzero().flatten().tolist()
    if missing:
        raise ValueError(
            f"the classes {missing} have no held-out source rows, so that nothing is known of how they are predicted: "
            "hold more rows out, or use `rlls_weights`."
        )
    if (found := separation(confusion)) < SINGULAR:
        never = (joint.sum(dim=1) == 0).nonzero().flatten().tolist()
        reason = f"the classes {never} are never predicted" if never else "some mixture of them looks like another"
        raise ValueError(
            f"the classifier's answers do not tell the classes apart (smallest singular value {found:.1e}): {reason}. "
            "Train it longer, or use `rlls_weights`."
        )
    return torch.linalg.solve(joint, target).clamp(min=0)


bbse_weights.paper = "1802.03916"
