"""What the scores of a ranking depend on; a finished row is found again by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from hf_transfer.core.task_loss import PROBLEM_TYPES
from hf_transfer.ranking.features import POOLINGS, check_layers
from hf_transfer.ranking.registry import score_class
from hf_transfer.ranking.score import TransferabilityScore

# A cheap score, and two ways of reading the classes off the same features that may well disagree with it.
DEFAULT_SCORES = ("logme", "knn", "linear_probe")


@dataclass(frozen=True)
class RankSettings:
    """Keywords of `rank_models` that change a score.

    `score_options` holds the keywords of each score's class by its name, or those of the first score.

    Raises:
        ValueError: for a value out of range.
        TypeError: for an option that the score does not have.
    """

    score: str | tuple[str, ...] = DEFAULT_SCORES
    score_options: Mapping[str, Any] = field(default_factory=dict)
    layers: str | tuple[int, ...] = "all"
    pooling: str = "mean"
    label_column: str | None = None
    problem_type: str | None = None
    input_columns: str | tuple[str, ...] | None = None
    max_samples: int | None = None
    max_length: int | None = None
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.scores, tuple | list) or not all(isinstance(name, str) for name in self.scores):
            raise ValueError(f"`score` should be a name or a list of names, got {self.score!r}.")
        if not isinstance(self.score_options, Mapping):
            raise ValueError(f"`score_options` should be a mapping, got {self.score_options!r}.")
        if not self.scores or len(set(self.scores)) < len(self.scores):
            raise ValueError(f"`score` should be a name or a list of different names, got {self.score!r}.")
        kinds = {name: score_class(name).reads for name in self.scores}
        if len(set(kinds.values())) > 1:
            raise ValueError(
                f"`score` mixes scores of features with scores of the source head's probabilities ({kinds}): rank by "
                "each kind in a call of its own."
            )
        self.new_scores()
        check_layers(self.layers)
        if self.pooling not in POOLINGS:
            raise ValueError(f"`pooling` should be one of {list(POOLINGS)}, got {self.pooling!r}.")
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            raise ValueError(f"`problem_type` should be one of {list(PROBLEM_TYPES)}, got {self.problem_type!r}.")
        if self.max_samples is not None and self.max_samples < 2:
            raise ValueError(f"`max_samples` should be at least 2, got {self.max_samples}.")
        if not isinstance(getattr(torch, self.dtype, None), torch.dtype):
            raise ValueError(f'`dtype` should name a torch type such as "float32" or "bfloat16", got {self.dtype!r}.')

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the scores; the first orders the ranking."""
        return (self.score,) if isinstance(self.score, str) else self.score

    @property
    def reads_head(self) -> bool:
        """Whether the scores want the source head's probabilities instead of features."""
        return score_class(self.scores[0]).reads == "probabilities"

    def new_scores(self) -> dict[str, TransferabilityScore]:
        """Empty accumulators by the names of the scores."""
        by_name = self.score_options
        if not set(by_name) <= set(self.scores) or not all(isinstance(value, Mapping) for value in by_name.values()):
            by_name = {self.scores[0]: self.score_options}
        return {name: score_class(name)(**by_name.get(name, {})) for name in self.scores}
