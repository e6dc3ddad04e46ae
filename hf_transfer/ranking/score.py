"""A transferability score is an accumulator of mergeable statistics, never a pile of features.

Rows are dealt to a fixed number of shards by their index, so that one pass gives the value and a jackknife standard
error, and so that two models scored on the same rows can be compared shard by shard.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from scipy.stats import t as student_t
from torch import Tensor

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
# Batches wait until the products of a shard's rows take longer than reading and writing the matrix they go into.
ROWS_PER_FLUSH = 8192
# How many of them are in float64 at a time.
ROWS_AT_ONCE = 1024

Statistics = dict[str, Tensor]


@dataclass(frozen=True)
class Score:
    """The value of a transferability score and how far to trust it.

    `replicates` are the values without each shard; two scores of the same rows are compared through their differences.
    """

    value: float
    standard_error: float | None
    replicates: tuple[float, ...] = ()
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


def jackknife_standard_error(replicates: Sequence[float]) -> float | None:
    """Delete-a-group jackknife: sqrt((S - 1) / S * sum_s (T_(-s) - mean)^2); None with fewer than two shards.

    Paper: Efron and Stein, Annals of Statistics 1981, https://doi.org/10.1214/aos/1176345462
    """
    shards = len(replicates)
    if shards < 2 or not all(math.isfinite(value) for value in replicates):
        return None
    mean = math.fsum(replicates) / shards
    return math.sqrt((shards - 1) / shards * math.fsum((value - mean) ** 2 for value in replicates))


def probability_of_beating(first: Score, second: Score) -> float | None:
    """Probability that `first` has the higher expected score: Student's t of the difference over its standard error.

    Scores of the same rows share their noise, which the difference shard by shard removes; scores that cannot be
    paired are taken as independent. None where no standard error is known.
    """
    shards = min(len(first.replicates), len(second.replicates))
    if shards < 2:
        return None
    if len(first.replicates) == len(second.replicates):
        error = jackknife_standard_error([a - b for a, b in zip(first.replicates, second.replicates)])
    elif None not in (first.standard_error, second.standard_error):
        error = math.hypot(first.standard_error, second.standard_error)
    else:
        error = None
    if error is None:
        return None
    difference = first.value - second.value
    if error == 0:
        return 0.5 if difference == 0 else float(difference > 0)
    return float(student_t.cdf(difference / error, df=shards - 1))


def target_columns(labels: Tensor) -> Tensor:
    """Float64 target columns: one-hot for class indices, the values themselves for regression and multi-label.

    Shapes: [B] integer -> [B, C]; [B] float -> [B, 1]; [B, C] -> [B, C].
    """
    if labels.ndim == 1 and not labels.is_floating_point():
        return F.one_hot(labels.long()).double()
    return labels.double().reshape(len(labels), -1)


class TransferabilityScore(ABC):
    """Base of the scores: `update` with batches, `merge` over processes, `compute` once.

    A score says which statistics one batch gives (`statistics`), and what value a sum of statistics has (`value`).

    Args:
        shards: groups of rows for the standard error; 1 switches it off.
    """

    paper: ClassVar[str]
    # What `update` wants as its first argument: "features" [B, D] or the source head's "probabilities" [B, Z].
    reads: ClassVar[str] = "features"

    def __init__(self, *, shards: int = 10):
        if shards < 1:
            raise ValueError(f"`shards` should be at least 1, got {shards}.")
        self.shards: list[Statistics | None] = [None] * shards
        self.next_row = 0
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._form: tuple | None = None

    @abstractmethod
    def statistics(self, features: Tensor, labels: Tensor, rows: Tensor) -> Statistics:
        """Statistics of some rows: features [B, D] in float64, labels as they came, rows [B] their places."""

    @abstractmethod
    def value(self, statistics: Statistics) -> tuple[float, dict[str, Any]]:
        """The score of summed statistics, and its diagnostics."""

    def combine(self, left: Statistics, right: Statistics) -> Statistics:
        """Sum of two statistics. Later batches may know more classes: the last axis grows."""
        return {name: sum_with_padding(left[name], right[name]) for name in left}

    def sum_of(self, parts: Sequence[Statistics]) -> Statistics:
        """Sum of statistics; none of them changes."""
        return reduce(self.combine, parts)

    def update(self, features: Tensor, labels: Tensor, rows: Tensor | None = None) -> None:
        """Add rows: features [B, D], labels [B] (class indices or regression values) or [B, C]; any device, any B.

        `rows` [B] are their places in the whole dataset, by default those after the last one. Tokens of one text
        share its place, so that the standard error does not take them as independent.

        Raises:
            ValueError: when shapes disagree, or something is not finite, or the form differs from earlier batches.
        """
        features, labels = features.detach(), labels.detach()
        if len(features) == 0:
            return
        self.check(features, labels)
        device = "cpu" if features.device.type == "mps" else features.device
        if rows is None:
            rows = torch.arange(self.next_row, self.next_row + len(features))
        self.next_row = max(self.next_row, int(rows.max()) + 1)
        self._waiting.append((features.to(device), labels.to(device), rows))
        if sum(len(rows) for _, _, rows in self._waiting) >= ROWS_PER_FLUSH:
            self._flush()

    def merge(self, other: TransferabilityScore) -> None:
        """Add the statistics of another accumulator of the same kind."""
        if type(other) is not type(self) or len(other.shards) != len(self.shards):
            raise ValueError(f"Only a {type(self).__name__} with {len(self.shards)} shards merges, got {other!r}.")
        if None not in (self._form, other._form) and self._form != other._form:
            raise ValueError(f"Features or labels have another form: {self._form} here, {other._form} there.")
        self._flush()
        other._flush()
        self._form = self._form or other._form
        self.next_row = max(self.next_row, other.next_row)
        for index, statistics in enumerate(other.shards):
            if statistics is not None and self.shards[index] is None:
                # Later rows may be added in place, and `other` keeps its own.
                statistics = {name: value.clone() for name, value in statistics.items()}
            self._add(index, statistics)

    def total(self) -> Statistics:
        """Sum of the statistics of all rows so far."""
        self._flush()
        filled = [statistics for statistics in self.shards if statistics is not None]
        if not filled:
            raise ValueError(f"{type(self).__name__} has seen no rows: call `update` first.")
        return self.sum_of(filled)

    def compute(self) -> Score:
        """Value, jackknife standard error and diagnostics of all rows so far; more rows may follow."""
        total = self.total()
        filled = [statistics for statistics in self.shards if statistics is not None]
        value, diagnostics = self.value(total)
        replicates = tuple(self.leave_one_out(filled, total)) if len(filled) > 1 else ()
        return Score(value, jackknife_standard_error(replicates), replicates, diagnostics)

    def to_cpu(self) -> None:
        """Move everything to the CPU, to be sent to another process."""
        self._flush()
        self.shards = [
            None if shard is None else {name: value.cpu() for name, value in shard.items()} for shard in self.shards
        ]

    def leave_one_out(self, shards: Sequence[Statistics], total: Statistics) -> list[float]:
        """The value without each shard in turn."""
        others = ([*shards[:index], *shards[index + 1 :]] for index in range(len(shards)))
        return [self.value(self.sum_of(rest))[0] for rest in others]

    def check(self, features: Tensor, labels: Tensor) -> None:
        """Raises ValueError for a batch that cannot be added; a score with a narrower taste extends it."""
        if features.ndim != 2 or labels.ndim not in (1, 2) or len(labels) != len(features):
            raise ValueError(
                f"`features` should be [B, D] and `labels` [B] or [B, C], "
                f"got {tuple(features.shape)} and {tuple(labels.shape)}."
            )
        # One sum is a quarter of the work of looking at every value; it may overflow, and then these are looked at.
        if not torch.isfinite(features.sum()) and not torch.isfinite(features).all():
            raise ValueError("Some features are not finite (NaN or infinity).")
        if not torch.isfinite(labels).all():
            raise ValueError("Some labels are not finite (NaN or infinity).")
        if labels.ndim == 1 and not labels.is_floating_point() and labels.min() < 0:
            raise ValueError(f"Class indices should be 0 or more, got {int(labels.min())}.")
        form = (features.shape[1], tuple(labels.shape[1:]), labels.is_floating_point())
        if self._form not in (None, form):
            raise ValueError(f"Features or labels changed their form: {self._form} before, {form} now.")
        self._form = form

    def _flush(self) -> None:
        if not self._waiting:
            return
        features, labels, rows = (torch.cat(parts) for parts in zip(*self._waiting))
        self._waiting = []
        # The golden ratio spreads any row order evenly, also one in which the classes alternate.
        owner = ((rows.double() * GOLDEN_RATIO).frac() * len(self.shards)).long()
        sizes = torch.bincount(owner, minlength=len(self.shards)).tolist()
        for index, theirs in enumerate(owner.argsort(stable=True).split(sizes)):
            for chosen in theirs.split(ROWS_AT_ONCE):
                if len(chosen):
                    there = chosen.to(features.device)
                    some, known = features[there].double(), labels[chosen.to(labels.device)]
                    self._add_rows(index, some, known, rows[chosen].to(features.device))

    def _add_rows(self, index: int, features: Tensor, labels: Tensor, rows: Tensor) -> None:
        self._add(index, self.statistics(features, labels, rows))

    def _add(self, index: int, statistics: Statistics | None) -> None:
        if statistics is None:
            return
        before = self.shards[index]
        self.shards[index] = statistics if before is None else self.combine(before, statistics)


def sum_with_padding(left: Tensor, right: Tensor) -> Tensor:
    """Sum of two tensors whose last axis may differ; the shorter is continued with zeros."""
    if left.shape != right.shape:
        width = max(left.shape[-1], right.shape[-1])
        left, right = (F.pad(part, (0, width - part.shape[-1])) for part in (left, right))
    return left + right.to(left.device)


def check_classes(score: TransferabilityScore, labels: Tensor) -> None:
    """Raises ValueError unless the labels are class indices [B]."""
    if labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(
            f"{type(score).__name__} compares classes: `labels` should be integers [B], got {labels.dtype} "
            f"{tuple(labels.shape)}. LogME and LinearProbe also take regression and multi-label targets."
        )
