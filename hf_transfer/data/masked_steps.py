"""Hidden steps of a series, in spans, which a model fills in.

    loss = mean over t in M of |x_t - xhat_t|^2 / C

M holds a share r of the steps in spans of mean length l: hidden spans are of geometric lengths with mean l, those
between them with mean l (1 - r) / r. At least one step of a row is hidden, and one is not where there are two.

Paper: Zerveas et al., "A Transformer-based Framework for Multivariate Time Series Representation Learning", KDD 2021,
https://huggingface.co/papers/2010.02803: r = .15, l = 3. There every channel is hidden by itself, here whole
steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hf_transfer.data.collators import PaddingCollator
from hf_transfer.data.visits import VISIT_COLUMN, seed_of


@dataclass(frozen=True)
class MaskedStepsCollator:
    """Gives `past_values` [B, T, C], `attention_mask` [B, T] and `hidden_steps` [B, T] (1 = hidden).

    A row that comes with its visit is hidden anew in each epoch; one without, as in evaluation, by its content: alike
    every time.

    Args:
        share: of the steps that are hidden, in (0, 1).
        span: mean length of a hidden span, at least 1.
        seed: of the draws; that of the training when left out.

    Raises:
        ValueError: a keyword out of range, or spans that leave less than one step between two.
    """

    share: float = 0.15
    span: float = 3.0
    seed: int | None = field(default=None, kw_only=True)
    reads_visits: ClassVar[bool] = True
    paper: ClassVar[str] = "2010.02803"

    def __post_init__(self):
        if not 0 < self.share < 1:
            raise ValueError(f"`share` should be in (0, 1), got {self.share}.")
        if self.span < 1:
            raise ValueError(f"`span` should be at least 1, got {self.span}.")
        if self.gap < 1:
            raise ValueError(
                f"`span` {self.span} with `share` {self.share} leaves {self.gap:.2g} steps between two spans: give a "
                "longer span or a smaller share."
            )

    @property
    def gap(self) -> float:
        """Mean length of what is left between two spans."""
        return self.span * (1 - self.share) / self.share

    def seeded(self, seed: int) -> Self:
        """The same with the seed that was left out."""
        return self if self.seed is not None else replace(self, seed=seed)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        plain = [{name: value for name, value in row.items() if name != VISIT_COLUMN} for row in rows]
        hidden = [torch.from_numpy(self.hidden(row)).long() for row in rows]
        return {**PaddingCollator("past_values")(plain), "hidden_steps": pad_sequence(hidden, batch_first=True)}

    def hidden(self, row: Mapping[str, Any]) -> np.ndarray:
        """Which steps of a row are hidden, [T] bool."""
        values, visit, seed = np.asarray(row["past_values"], dtype=np.float32), row.get(VISIT_COLUMN), self.seed or 0
        content = seed_of(f"{seed} ".encode() + values.tobytes()) if visit is None else visit.seed(seed)
        return hidden_spans(len(values), self.share, self.span, self.gap, np.random.default_rng(content))


def hidden_spans(steps: int, share: float, span: float, gap: float, generator: np.random.Generator) -> np.ndarray:
    """Hidden steps [T] bool in spans of geometric lengths.

    Args:
        steps: T.
        share: probability that the first step is hidden.
        span: mean length of a hidden span.
        gap: mean length of what is between two.
        generator: of the draws.
    """
    hidden, place, is_hidden = np.zeros(steps, dtype=bool), 0, generator.random() < share
    while place < steps:
        length = int(generator.geometric(1 / (span if is_hidden else gap)))
        hidden[place : place + length] = is_hidden
        place, is_hidden = place + length, not is_hidden
    if not hidden.any() or (hidden.all() and steps > 1):
        hidden[generator.integers(steps)] ^= True
    return hidden
