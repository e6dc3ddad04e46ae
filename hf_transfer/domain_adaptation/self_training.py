"""What self-training methods share: the loss against confident pseudo-labels, and the two views of the target rows."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hf_transfer.core.objective import View


def confident_cross_entropy(logits: Tensor, teacher_logits: Tensor, threshold: float | Tensor) -> Tensor:
    """Cross entropy against the argmax of a teacher, of the rows where the teacher is confident.

        (1/B) sum_b 1[max p_b >= threshold] CE(logits_b, argmax p_b),   p = softmax(teacher_logits), detached

    Args:
        logits: [B, C], B >= 1, which are trained.
        teacher_logits: [B, C].
        threshold: least probability of a pseudo-label; a number, or [C] with one for each class.

    Returns:
        A scalar. Rows without confidence count in B, so the loss grows with the number of confident rows.
    """
    confidence, pseudo_labels = teacher_logits.detach().softmax(dim=1).max(dim=1)
    least = threshold[pseudo_labels] if isinstance(threshold, Tensor) else threshold
    losses = F.cross_entropy(logits, pseudo_labels, reduction="none")
    return (losses * (confidence >= least)).mean()


def target_view_pair(view: View) -> tuple[View, View]:
    """The target rows as given (weakly augmented) and their second (strongly augmented) copies.

    Raises:
        ValueError: the batch carries no second copy.
    """
    if not view.views:
        raise ValueError(
            "this method needs two augmented views of every row: use a collator that adds keys starting with `view_`."
        )
    target = view.target
    return target, target.views[0]
