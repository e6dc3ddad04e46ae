"""How several processes share the work of a ranking: each reads its part of the rows, or takes models of its own.

    data:    every process runs every model on 1/P of the rows; the statistics are merged, model by model
    models:  process p runs the models p, p + P, p + 2P, ... on all rows; finished rows are gathered at the end
    auto:    models, where there are at least P candidates, at most 10,000 rows, and no model is removed after use

Both give the ranking of one process. `models` loads each model on one process alone and merges no statistics; the
process with the slowest models decides when it ends. The bound on the rows is a choice of ours, not a measured one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import gather_object

from hf_transfer.ranking.ranking import RankingRow

PARALLEL = ("data", "models", "auto")
FEW_ROWS = 10_000
LONGEST_WAIT = timedelta(days=7)


class SharedRows:
    """Every process runs every model on its part of the rows."""

    def __init__(self):
        self.state = PartialState()
        self.num_parts, self.part = self.state.num_processes, self.state.process_index
        self.keeps_rows = self.state.is_main_process

    def names(self, names: Sequence[str]) -> list[str]:
        """The models that this process runs."""
        return list(names)

    def outcomes(self, outcome: Any) -> list[Any]:
        """What all processes found out about the present model."""
        return gather_object([outcome])

    def joined(self, rows: list[list[RankingRow]]) -> list[RankingRow]:
        """The rows of all models, in the order of their names; those of this process come model by model."""
        return [row for theirs in rows for row in theirs]


class SharedModels:
    """Every process runs models of its own on all rows; nothing is exchanged before the end."""

    def __init__(self):
        self.state = PartialState()
        self.num_parts, self.part = 1, 0
        self.keeps_rows = True
        # Processes finish at different times: the default group gives up waiting after 10 minutes on GPUs.
        self.group = dist.new_group(backend="gloo", timeout=LONGEST_WAIT) if self.state.num_processes > 1 else None

    def names(self, names: Sequence[str]) -> list[str]:
        """The models that this process runs."""
        return list(names[self.state.process_index :: self.state.num_processes])

    def outcomes(self, outcome: Any) -> list[Any]:
        """What this process found out about the present model."""
        return [outcome]

    def joined(self, rows: list[list[RankingRow]]) -> list[RankingRow]:
        """The rows of all models, in the order of their names, on every process."""
        parts = [rows]
        if self.group is not None:
            parts = [None] * self.state.num_processes
            dist.all_gather_object(parts, rows, group=self.group)
        return [row for theirs in once_an_architecture(dealt_back(parts)) for row in theirs]


def sharing_of(parallel: str, num_models: int, num_rows: int, free_disk: bool) -> SharedRows | SharedModels:
    """The way of sharing that a keyword asks for.

    Raises:
        ValueError: there is no such way, or models would be removed that another process reads.
    """
    if parallel not in PARALLEL:
        raise ValueError(f"`parallel` should be one of {list(PARALLEL)}, got {parallel!r}.")
    processes = PartialState().num_processes
    if parallel == "models" and free_disk and processes > 1:
        raise ValueError(
            '`parallel="models"` does not go with `free_disk`: a process would remove the base model that an adapter '
            'of another process needs. Use `parallel="data"`, or keep the models.'
        )
    few = num_models >= processes and num_rows <= FEW_ROWS and not free_disk
    return SharedModels() if parallel == "models" or (parallel == "auto" and few) else SharedRows()


def dealt_back(parts: Sequence[Sequence[list[RankingRow]]]) -> list[list[RankingRow]]:
    """Rows of each model from P processes, in the order of the names that `names[p::P]` took apart."""
    longest = max(len(part) for part in parts)
    return [part[turn] for turn in range(longest) for part in parts if turn < len(part)]


def once_an_architecture(models: Sequence[list[RankingRow]]) -> list[list[RankingRow]]:
    """Rows of each model, the first its own, without the random baseline of an architecture that has one already."""
    seen: set[str | None] = set()
    kept = []
    for own, *baselines in models:
        kept.append([own, *([] if own.architecture in seen else baselines)])
        if baselines:
            seen.add(own.architecture)
    return kept
