"""Which row of which epoch a collator is given, so that what it draws can depend on these and on nothing else.

A sampler gives visits in place of row numbers, and the dataset puts each under `VISIT_COLUMN` of its row: the epoch
reaches worker processes with the rows themselves, however long these processes live.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from datasets import Dataset
from torch.utils.data import Sampler

VISIT_COLUMN = "visit"


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
