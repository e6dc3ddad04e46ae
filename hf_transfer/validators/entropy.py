"""Certainty of the target predictions.

    score = -mean_i H(p_i),   p = softmax(logits) of target rows

Highest (0) where every prediction is certain. It cannot see a collapse to one class: `information_maximization` can.

Paper: Morerio et al., "Minimal-Entropy Correlation Alignment for Unsupervised Deep Domain Adaptation", ICLR 2018,
https://huggingface.co/papers/1711.10288, where the model with the least target entropy is chosen.
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.functional import prediction_entropy
from hf_transfer.validators.rows import target_rows


def entropy(features: Tensor, logits: Tensor, domain: Tensor | None, labels: Tensor | None = None) -> float:
    """Minus the mean entropy of the target predictions, in [-log C, 0].

    Args:
        features: [N, D], not read.
        logits: [N, C].
        domain: [N], 1 = target, or None where all rows are.
        labels: not read.

    Raises:
        ValueError: there is no target row.
    """
    return -prediction_entropy(target_rows(logits, domain).double()).mean().item()
