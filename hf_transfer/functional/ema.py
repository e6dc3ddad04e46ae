"""Exponential moving average of a model's weights."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, momentum: float) -> None:
    """average <- momentum * average + (1 - momentum) * model, in place; buffers are copied as they are.

    Args:
        average: a copy of `model`, with the same parameters and buffers in the same order.
        model: the model in training.
        momentum: share of the old average, in [0, 1].
    """
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value.to(mean.dtype), 1.0 - momentum)
    for kept, value in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(value)
