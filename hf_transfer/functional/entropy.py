"""Entropy of softmax predictions and the confidence weights made from it."""

from __future__ import annotations

import torch
from torch import Tensor


def prediction_entropy(logits: Tensor) -> Tensor:
    """Entropy of every prediction in nats: H_i = -sum_c p_ic log p_ic, with p = softmax(logits) and 0 log 0 = 0.

    Args:
        logits: [B, C]; -inf for classes that a model rules out.

    Returns:
        [B], each in [0, log C].
    """
    log_p = torch.log_softmax(logits, dim=-1)
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(dim=-1)


def certainty_weights(logits: Tensor) -> Tensor:
    """Weights that favour certain predictions and sum to B: w_i = B (1 + exp(-H_i)) / sum_j (1 + exp(-H_j)).

    They carry no gradient: a loss weighted by them cannot be lowered by making a row uncertain.

    Args:
        logits: [B, C].

    Returns:
        [B].
    """
    certainty = 1.0 + torch.exp(-prediction_entropy(logits.detach()))
    return certainty * (len(certainty) / certainty.sum())
