"""Which row of which epoch a collator is given, so that what it draws can depend on these and on nothing else.

A sampler gives visits in place of row numbers, and the dataset puts each under `VISIT_COLUMN` of its row: the epoch
reaches worker processes with the rows themselves, however long these processes live.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler

VISIT_COLUMN = "visit"
NUMBERS = "row_numbers"
TRIED_ROWS = 2


class Visit(NamedTuple):
    """One reading of a row.

    Args:
        row: its number in the training set.
        epoch: of the training.
        lap: how often the row came before in this epoch, where the sampler repeats rows.
    """

    row: int
    epoch: int
    lap: int

    def seed(self, seed: int) -> int:
        """A seed, below 2^63, that depends on the visit and on `seed` alone."""
        return seed_of(f"{seed} {self.row} {self.epoch} {self.lap}".encode())


def seed_of(text: bytes) -> int:
    """A seed, below 2^63, of its own for every text."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def row_seed(row: Mapping[str, Any], tokens: Sequence[int], seed: int) -> int:
    """The seed of what is drawn for a row of tokens: by its visit where it comes with one, else by its content.

    Args:
        row: what a collator is given of it.
        tokens: of the row.
        seed: of the training.
    """
    visit = row.get(VISIT_COLUMN)
    return seed_of(f"{seed} {list(tokens)}".encode()) if visit is None else visit.seed(seed)


class VisitSampler(Sampler[Visit]):
    """The rows of another sampler as visits.

    Args:
        sampler: gives row numbers; an epoch that it is told goes on to it.
    """

    def __init__(self, sampler: Sampler[int]):
        self.sampler = sampler
        self.epoch = getattr(sampler, "epoch", 0)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Visit]:
        seen: Counter[int] = Counter()
        for row in self.sampler:
            yield Visit(row, self.epoch, seen[row])
            seen[row] += 1


class VisitedRows:
    """A dataset that is read by visits, each of which stands under `VISIT_COLUMN` of its row.

    Args:
        rows: the training set.
    """

    def __init__(self, rows: Dataset):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, visit: Visit) -> dict[str, Any]:
        return {**self.rows[visit.row], VISIT_COLUMN: visit}

    def __getitems__(self, visits: list[Visit]) -> list[dict[str, Any]]:
        rows = self.rows.__getitems__([visit.row for visit in visits])
        return [{**row, VISIT_COLUMN: visit} for row, visit in zip(rows, visits, strict=True)]


@dataclass(frozen=True)
class NumberingCollator:
    """Adds the numbers of the rows in the training set, [B], to what another collator gives.

    Args:
        collator: makes a batch of rows.
    """

    collator: Callable[[Sequence[Any]], Mapping[str, Any]]
    reads_visits: ClassVar[bool] = True

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        numbers = torch.tensor([row[VISIT_COLUMN].row for row in rows])
        rows = [{name: value for name, value in row.items() if name != VISIT_COLUMN} for row in rows]
        return {**self.collator(rows), NUMBERS: numbers}


def is_repeatable(collator: Callable[[Sequence[Any]], Mapping[str, Any]], rows: Dataset) -> bool:
    """Whether rows are the same at every visit: nothing is drawn by the collator or by a transform of the dataset.

    Tried on two rows, each read twice, without a trace in torch's random state.
    """
    if getattr(collator, "reads_visits", False):
        return False
    indices = range(min(TRIED_ROWS, len(rows)))
    with torch.random.fork_rng(devices=[]):
        first, second = (collator([rows[index] for index in indices]) for _ in range(2))
    return all(
        torch.equal(value, second[name]) if isinstance(value, Tensor) else value == second[name]
        for name, value in first.items()
    )
