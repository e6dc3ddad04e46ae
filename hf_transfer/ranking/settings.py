"""What the scores of a ranking depend on; a finished row is found again by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from hf_transfer.ranking.features import POOLINGS, check_layers
from hf_transfer.ranking.registry import score_class
from hf_transfer.ranking.score import TransferabilityScore


@dataclass(frozen=True)
class RankSettings:
    """Keywords of `rank_models` that change a score.

    Raises:
        ValueError: for a value out of range.
        TypeError: for an option that the score does not have.
    """

    score: str = "logme"
    score_options: Mapping[str, Any] = field(default_factory=dict)
    layers: str | tuple[int, ...] = "last"
    pooling: str = "mean"
    label_column: str | None = None
    input_columns: str | tuple[str, ...] | None = None
    max_samples: int | None = None
    max_length: int | None = None
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self):
        self.new_score()
        check_layers(self.layers)
        if self.pooling not in POOLINGS:
            raise ValueError(f"`pooling` should be one of {list(POOLINGS)}, got {self.pooling!r}.")
        if self.max_samples is not None and self.max_samples < 2:
            raise ValueError(f"`max_samples` should be at least 2, got {self.max_samples}.")
        if not isinstance(getattr(torch, self.dtype, None), torch.dtype):
            raise ValueError(f'`dtype` should name a torch type such as "float32" or "bfloat16", got {self.dtype!r}.')

    @property
    def reads_head(self) -> bool:
        """Whether the score wants the source head's probabilities instead of features."""
        return score_class(self.score).reads == "probabilities"

    def new_score(self) -> TransferabilityScore:
        """An empty accumulator."""
        return score_class(self.score)(**self.score_options)
