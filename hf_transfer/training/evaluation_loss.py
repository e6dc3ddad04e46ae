"""The loss of an evaluation as a mean over items, where batches have other shares of them.

    loss = sum_b n_b loss_b / sum_b n_b

with the items n_b of `LossItems`: rows that have a label, words, pixels. transformers weighs the losses of batches by
their rows, which is the same where every row has as many items; where rows without labels, or longer and shorter ones,
lie unevenly among the batches, it depends on the size of a batch.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor


class EvaluationLoss:
    """Collects the losses of the batches of one evaluation."""

    def __init__(self) -> None:
        self.batches: list[tuple[float, int, int]] = []
        self.is_counted = True

    def add(self, loss: Tensor | None, items: Tensor | None, rows: int | None) -> None:
        """A batch.

        Args:
            loss: mean over its items.
            items: how many these are; None where they are not counted.
            rows: of the batch.
        """
        if loss is None or items is None or not rows:
            self.is_counted = False
        else:
            self.batches.append((float(loss), int(items), rows))

    def mean(self, accelerator: Accelerator) -> float | None:
        """Over the items of all processes; None where the mean over rows is the same, or items are not counted."""
        shares = [items / rows for _, items, rows in self.batches]
        total = [
            sum(loss * items for loss, items, _ in self.batches),
            sum(items for _, items, _ in self.batches),
            min(shares, default=float("nan")),
            max(shares, default=float("nan")),
            float(self.is_counted),
        ]
        sums, items, least, most, counted = accelerator.gather(
            torch.tensor([total], dtype=torch.float32, device=accelerator.device)
        ).T.double()
        if not counted.all() or items.sum() == 0 or least.min() == most.max() or not torch.isfinite(least).all():
            return None
        return float(sums.sum() / items.sum())
