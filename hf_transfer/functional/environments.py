"""Risks of the training environments, for methods that generalise over several sources."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_transfer.core.task_loss import problem_type_of_outputs, row_losses


def row_risks(logits: Tensor, labels: Tensor, problem_type: str | None = None, label_smoothing: float = 0.0) -> Tensor:
    """The task loss of every row, [B].

    Args:
        logits: [B, C].
        labels: [B] or [B, C].
        problem_type: of the run; told from the labels when left out.
        label_smoothing: of the run.
    """
    return row_losses(logits, labels, problem_type or problem_type_of_outputs(logits, labels), label_smoothing)


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
