"""Episodes of few-shot learning: a few classes, a few support rows and some query rows of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch

from hf_transfer.core.objective import IGNORED_LABEL, Objective
from hf_transfer.data.samplers import ShuffleSampler, permutation
from hf_transfer.functional.keyword_checks import require_positive


class EpisodeSampler(ShuffleSampler):
    """Batches of `ways * (shots + queries)` rows: the support rows class by class, then the query rows alike.

    Every episode depends on (seed, epoch, its number) alone. Its classes and rows are drawn without replacement; rows
    without a label and classes with too few rows are left out.

    Args:
        labels: class of each row.
        ways: classes in an episode.
        shots: support rows of each class.
        queries: query rows of each class.
        seed: any integer.
        num_processes: how many processes share the episodes of an epoch.
        num_episodes: in an epoch; as many as hold the number of rows when left out.

    Raises:
        ValueError: fewer than `ways` classes have enough rows, or a number is not positive.
    """

    def __init__(
        self,
        labels: Sequence[int],
        ways: int,
        shots: int,
        queries: int,
        seed: int = 0,
        num_processes: int = 1,
        num_episodes: int | None = None,
    ):
        super().__init__(len(labels), seed)
        require_positive(ways=ways, shots=shots, queries=queries)
        label = torch.as_tensor(labels)
        members = {int(c): torch.nonzero(label == c).flatten().tolist() for c in label.unique() if c != IGNORED_LABEL}
        self.members = [rows for rows in members.values() if len(rows) >= shots + queries]
        if len(self.members) < ways:
            raise ValueError(
                f"an episode of {ways} classes with {shots} + {queries} rows each cannot be drawn: "
                f"{len(self.members)} of the {len(members)} classes have as many rows."
            )
        self.ways, self.shots, self.queries = ways, shots, queries
        self.batch_size = ways * (shots + queries)
        wanted = math.ceil(len(labels) / self.batch_size) if num_episodes is None else num_episodes
        self.num_batches = math.ceil(wanted / num_processes) * num_processes

    def __len__(self) -> int:
        return self.num_batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        for number in range(self.num_batches):
            yield from self.episode(number)

    def episode(self, number: int) -> list[int]:
        """The rows of one episode of this epoch."""
        classes = permutation(len(self.members), self.seed, self.epoch, number)[: self.ways]
        drawn = []
        for place in classes:
            rows = self.members[place]
            order = permutation(len(rows), self.seed, self.epoch, number, place + 1)
            drawn.append([rows[i] for i in order[: self.shots + self.queries]])
        support = [row for rows in drawn for row in rows[: self.shots]]
        return support + [row for rows in drawn for row in rows[self.shots :]]


def episodes_for(
    objectives: Iterable[Objective], labels: Sequence[int], batch_size: int, seed: int, num_processes: int
) -> EpisodeSampler:
    """The episodes of which those objectives learn that need `episodes`, one a batch.

    Args:
        objectives: of which at least one does.
        labels: class of each row.
        batch_size: of one process.
        seed: any integer.
        num_processes: how many processes share the episodes.

    Raises:
        ValueError: they ask for different episodes, or the batch size is not that of an episode.
    """
    sizes = {(one.ways, one.shots, one.queries) for one in objectives if "episodes" in one.needs}
    if len(sizes) > 1:
        raise ValueError(f"the objectives should ask for the same (ways, shots, queries), got {sorted(sizes)}.")
    sampler = EpisodeSampler(labels, *sizes.pop(), seed, num_processes)
    if batch_size != sampler.batch_size:
        raise ValueError(
            "`per_device_train_batch_size` should be ways * (shots + queries), an episode's "
            f"{sampler.batch_size} rows, got {batch_size}."
        )
    return sampler
