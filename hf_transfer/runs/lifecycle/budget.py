"""What a plan costs, and what a budget leaves of it: the least promising models and methods go first, and it is told.

    minutes = sum over methods of (minutes of the search + seeds * minutes of a training)

A model ranked lower is less promising; on one model, a method that stands later in the plan. The first method of each
stage on the best model stays, and source only. When these are left, seeds go, down to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hf_transfer.runs.lifecycle.methods import SOURCE_ONLY

GIGABYTE = 1e9


@dataclass(frozen=True)
class Work:
    """What one method on one model costs.

    Args:
        stage: pretrain, task, domain or combine.
        model: as tables show it.
        method: its label; empty where the model itself is pre-trained.
        rank: of the model, from 0.
        search: minutes of all trials.
        training: minutes of one seed.
        memory: bytes.
        stays: it is not left out for the minutes.
        weights: bytes of those of the model, where it is not saved yet.
    """

    stage: str
    model: str
    method: str
    rank: int
    search: float
    training: float
    memory: int
    stays: bool = False
    weights: int | None = None

    @property
    def name(self) -> tuple[str, str, str]:
        return self.stage, self.model, self.method

    def minutes(self, seeds: int) -> float:
        """Of the search and all seeds."""
        return self.search + seeds * self.training

    def in_words(self) -> str:
        return f"{self.stage}: " + (f"{self.method} on {self.model}" if self.method else self.model)


def fit(
    work: Sequence[Work], seeds: int, minutes: float | None, memory: int | None
) -> tuple[list[Work], int, list[str]]:
    """The work that the budget leaves, how many seeds, and what was left out and why.

    Args:
        work: of the whole plan, in its order.
        seeds: of the plan.
        minutes: of the budget; None for no limit.
        memory: bytes of the budget; None for no limit.

    Raises:
        ValueError: what cannot be left out needs more.
    """
    left, told = [], []
    for one in work:
        if memory is not None and one.memory > memory:
            needs = f"{one.memory / GIGABYTE:.2f} GB of {memory / GIGABYTE:.2f} GB memory"
            told.append(f"{one.in_words()} is left out: it needs about {needs}.")
        else:
            left.append(one)
    if not left:
        raise ValueError(f"`budget.memory` leaves nothing: {' '.join(told)} Choose smaller models or batches.")
    while minutes is not None and (total := sum(one.minutes(seeds) for one in left)) > minutes:
        over = f"the plan needs about {total:.1f} minutes of {minutes:g}"
        open_to_cut = [(one.rank, place) for place, one in enumerate(left) if not one.stays]
        if open_to_cut:
            gone = left.pop(max(open_to_cut)[1])
            told.append(f"{gone.in_words()} is left out: {over}.")
        elif seeds > 1:
            seeds -= 1
            told.append(f"{seeds} seeds are trained: {over}.")
        else:
            raise ValueError(
                f"`budget.minutes` is too small: {over}, with nothing left to leave out. Give more minutes, or fewer "
                "steps (training: {max_steps: ...}) or values to search."
            )
    return left, seeds, told


def with_staying(work: Sequence[Work]) -> list[Work]:
    """The work with the first method of each stage on the best model, and source only, marked as staying."""
    first: dict[str, int] = {}
    for place, one in enumerate(work):
        if one.rank == 0 and one.method != SOURCE_ONLY:
            first.setdefault(one.stage, place)
    return [
        replace(one, stays=one.stays or one.method == SOURCE_ONLY or place in first.values())
        for place, one in enumerate(work)
    ]
