"""Risks of the training environments, for methods that generalise over several sources."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def row_risks(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of every row, [B]: cross entropy for integer labels, mean squared error for float ones.

    Args:
        logits: [B, C].
        labels: [B] integers, or floats [B] or [B, C].
    """
    if labels.is_floating_point():
        return (logits - labels.reshape(logits.shape)).square().mean(dim=1)
    return F.cross_entropy(logits, labels, reduction="none")


def environment_means(values: Tensor, environment: Tensor) -> tuple[Tensor, Tensor]:
    """The environments that occur and the mean value of each.

    Args:
        values: [B].
        environment: [B] integers.

    Returns:
        [E] sorted environment numbers, and [E] means.
    """
    present, index, counts = torch.unique(environment, return_inverse=True, return_counts=True)
    sums = values.new_zeros(len(present)).index_add(0, index, values)
    return present, sums / counts
