"""Samplers whose order depends on (seed, epoch) alone, so that a resumed run reads the rows of a straight one."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

WEIGHT_COLUMN = "sampling_weight"
"""How often a row of a training set is drawn, beside the others."""


class ShuffleSampler(Sampler[int]):
    """Every row once an epoch, in an order drawn from (seed, epoch).

    Args:
        num_rows: size of the dataset.
        seed: any integer.

    Raises:
        ValueError: the dataset is empty.
    """

    def __init__(self, num_rows: int, seed: int = 0):
        if num_rows < 1:
            raise ValueError("the dataset is empty: there is nothing to sample.")
        self.num_rows = num_rows
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[int]:
        return iter(permutation(self.num_rows, self.seed, self.epoch))


class WeightedSampler(ShuffleSampler):
    """As many rows as there are, drawn with replacement in proportion to their weights, anew from (seed, epoch).

    Args:
        weights: of every row, at least 0.
        seed: any integer.

    Raises:
        ValueError: no rows, a weight that is negative or not finite, or none above 0.
    """

    def __init__(self, weights: Sequence[float] | Tensor, seed: int = 0):
        weights = torch.as_tensor(weights, dtype=torch.double)
        super().__init__(len(weights), seed)
        if not weights.isfinite().all() or (weights < 0).any() or not (weights > 0).any():
            raise ValueError(f"`{WEIGHT_COLUMN}` should hold numbers from 0 on, one of them above 0, and all finite.")
        self.ends = weights.cumsum(0)
        self.last = int(weights.nonzero().max())

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mixed(self.seed, self.epoch))
        indices = torch.rand(self.num_rows, generator=generator, dtype=torch.double) * self.ends[-1]
        # to the right of an end that is hit, so that a row of weight 0 is never drawn
        drawn = torch.searchsorted(self.ends, indices, right=True)
        return iter(drawn.clamp(max=self.last).tolist())  # a place may be rounded up to the sum


class DomainBalancedSampler(ShuffleSampler):
    """Batches that hold the same number of rows of every domain: half source and half target where there are two.

    An epoch is as long as the largest domain needs; smaller domains start over in a new order. Within a batch the
    rows stand domain by domain. `batch_size` rows are one process's batch; `num_processes` rounds the number of
    batches so that all processes get the same.

    Args:
        domains: domain of each row (any integers).
        batch_size: rows in a batch, a multiple of the number of domains.
        seed: any integer.
        num_processes: how many processes share the batches.
        left_out: domains whose rows nothing reads; a batch is shorter by theirs, and otherwise as it would be.

    Raises:
        ValueError: no rows, or `batch_size` is not a multiple of the number of domains.
    """

    def __init__(
        self,
        domains: Sequence[int],
        batch_size: int,
        seed: int = 0,
        num_processes: int = 1,
        left_out: Collection[int] = (),
    ):
        super().__init__(len(domains), seed)
        domain = torch.as_tensor(domains)
        self.members = {int(d): torch.nonzero(domain == d).flatten().tolist() for d in domain.unique()}
        if batch_size % len(self.members):
            raise ValueError(
                f"`batch_size` should be a multiple of the number of domains ({len(self.members)}), got {batch_size}: "
                "each batch holds the same number of rows of every domain."
            )
        self.share = batch_size // len(self.members)
        self.read = [domain for domain in self.members if domain not in left_out]
        self.batch_size = self.share * len(self.read)
        largest = max(len(rows) for rows in self.members.values())
        self.num_batches = math.ceil(largest / self.share / num_processes) * num_processes

    def __len__(self) -> int:
        return self.num_batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        streams = [self._stream(domain) for domain in self.read]
        for _ in range(self.num_batches):
            for stream in streams:
                for _ in range(self.share):
                    yield next(stream)

    def _stream(self, domain: int) -> Iterator[int]:
        rows = self.members[domain]
        lap = 0
        while True:
            for index in permutation(len(rows), self.seed, self.epoch, domain, lap):
                yield rows[index]
            lap += 1


def permutation(size: int, *keys: int) -> list[int]:
    """A random order of range(size) that depends on the keys alone."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(mixed(*keys))).tolist()


def mixed(*keys: int) -> int:
    """A seed that depends on all keys."""
    seed = 0
    for key in keys:
        seed = (seed * 1_000_003 + int(key) + 1) % (2**63 - 1)
    return seed
