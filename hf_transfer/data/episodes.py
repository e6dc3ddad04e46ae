"""Episodes of few-shot learning: a few classes, a few support rows and some query rows of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from datasets import Dataset

from hf_transfer.core.objective import IGNORED_LABEL, Objective
from hf_transfer.data.checks import column_values, label_column
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
        per_batch: episodes in a batch; an epoch has as many more as fill the batches of all processes.

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
        per_batch: int = 1,
    ):
        super().__init__(len(labels), seed)
        require_positive(ways=ways, shots=shots, queries=queries, per_batch=per_batch)
        label = torch.as_tensor(labels)
        members = {int(c): torch.nonzero(label == c).flatten().tolist() for c in label.unique() if c != IGNORED_LABEL}
        self.members = [rows for rows in members.values() if len(rows) >= shots + queries]
        if len(self.members) < ways:
            raise ValueError(
                f"an episode of {ways} classes with {shots} + {queries} rows each cannot be drawn: "
                f"{len(self.members)} of the {len(members)} classes have as many rows."
            )
        self.ways, self.shots, self.queries = ways, shots, queries
        size, at_once = ways * (shots + queries), per_batch * num_processes
        self.batch_size = per_batch * size
        wanted = math.ceil(len(labels) / size) if num_episodes is None else num_episodes
        self.num_episodes = math.ceil(wanted / at_once) * at_once

    def __len__(self) -> int:
        return self.num_episodes * self.ways * (self.shots + self.queries)

    def __iter__(self) -> Iterator[int]:
        for number in range(self.num_episodes):
            yield from self.episode(number)

    def episode(self, number: int) -> list[int]:
        """The rows of one episode of this epoch."""
        classes = permutation(len(self.members), self.seed, self.epoch, number)[: self.ways]
        drawn = []
        for index in classes:
            rows = self.members[index]
            order = permutation(len(rows), self.seed, self.epoch, number, index + 1)
            drawn.append([rows[i] for i in order[: self.shots + self.queries]])
        support = [row for rows in drawn for row in rows[: self.shots]]
        return support + [row for rows in drawn for row in rows[self.shots :]]


def episodes_for(
    objectives: Iterable[Objective], dataset: Dataset, batch_size: int, seed: int, num_processes: int
) -> EpisodeSampler:
    """The episodes of which those objectives learn that need `episodes`.

    Args:
        objectives: of which at least one does.
        dataset: with the column that they draw classes of.
        batch_size: of one process.
        seed: any integer.
        num_processes: how many processes share the episodes.

    Raises:
        ValueError: they ask for different episodes, or the batch size is not that of their episodes.
    """
    asked = {
        (one.grouped_by, one.ways, one.shots, one.queries, one.episodes_per_batch)
        for one in objectives
        if "episodes" in one.needs
    }
    if len(asked) > 1:
        raise ValueError(
            "the objectives should ask for the same (column, ways, shots, queries, episodes_per_batch), got "
            f"{sorted(asked)}."
        )
    column, *sizes, per_batch = asked.pop()
    labels = column_values(dataset, label_column(dataset, "training") if column == "labels" else column)
    sampler = EpisodeSampler(labels, *sizes, seed, num_processes, per_batch=per_batch)
    if batch_size != sampler.batch_size:
        raise ValueError(
            "`per_device_train_batch_size` should be episodes_per_batch * ways * (shots + queries), which is "
            f"{sampler.batch_size} rows, got {batch_size}."
        )
    return sampler
