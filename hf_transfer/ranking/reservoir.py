"""A bounded sample of the rows, for scores that no fixed-size statistic can give.

Each row has a priority that depends on its place in the dataset alone; every shard keeps the rows of smallest
priority. So the sample is the same for any batch size and any number of processes, and up to `max_rows` it is the
whole dataset.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hf_transfer.ranking.score import Statistics, TransferabilityScore

# Not a rational combination of 1 and the golden ratio, so that priorities and shards are independent.
PRIORITY_STEP = math.sqrt(2) - 1


class ReservoirScore(TransferabilityScore):
    """A score whose statistics hold rows: `features`, `labels`, `priority`, besides any sums of a subclass.

    Args:
        max_rows: how many rows to keep in all.
    """

    def __init__(self, *, max_rows: int = 5000, shards: int = 10):
        if max_rows < shards:
            raise ValueError(f"`max_rows` should be at least `shards` ({shards}), got {max_rows}.")
        super().__init__(shards=shards)
        self.max_rows = max_rows

    def statistics(self, features: Tensor, labels: Tensor, rows: Tensor) -> Statistics:
        priority = (rows.double() * PRIORITY_STEP).frac()
        return self.thin({"features": features.float(), "labels": labels, "priority": priority})

    def combine(self, left: Statistics, right: Statistics) -> Statistics:
        kept = ("features", "labels", "priority")
        sums = super().combine(*({name: part[name] for name in part if name not in kept} for part in (left, right)))
        return sums | {name: torch.cat([left[name], right[name].to(left[name].device)]) for name in kept}

    def _add(self, index: int, statistics: Statistics | None) -> None:
        super()._add(index, statistics)
        if self.shards[index] is not None:
            self.shards[index] = self.thin(self.shards[index])

    def thin(self, statistics: Statistics) -> Statistics:
        """Keep a shard's share of the rows, those of smallest priority."""
        most = self.max_rows // len(self.shards)
        priority = statistics["priority"]
        if len(priority) <= most:
            return statistics
        keep = priority.argsort()[:most]
        return statistics | {name: statistics[name][keep] for name in ("features", "labels", "priority")}


def means_without_each_shard(values: Tensor, shards: Sequence[Statistics]) -> list[float]:
    """Mean of per-row values [n] without the rows of each shard; the rows stand shard by shard."""
    sizes = [len(shard["labels"]) for shard in shards]
    total, rows = float(values.sum()), len(values)
    parts = [float(part.sum()) for part in values.split(sizes)]
    return [(total - part) / (rows - size) for part, size in zip(parts, sizes)]
