"""Permuted language modelling: tokens predicted in a random order, each from those before it in that order.

    loss = - mean over predicted i of log p(x_i | x_j with rank_j < rank_i)

One token in K is predicted. Going through the row: a length n of 1 to 5, with a probability proportional to 1/n; a
span of n tokens at a uniform place among the next n * K; on behind these. What is then missing from the budget of
T // K is drawn one by one. Text that is not predicted has the rank -1: all see it, and it sees no predicted token.
Predicted and special tokens have random ranks within each half of the row.

Paper: Yang et al., NeurIPS 2019, https://huggingface.co/papers/1906.08237: 1 in 6, lengths 1 to 5, spans inside their
context. 1/n, the budget (85 of 512) and halves (256 of 512) are from the released code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from hf_transfer.data.text_collator import TextCollator

IGNORED = -100


@dataclass(frozen=True)
class PermutationCollator(TextCollator):
    """Batches for XLNet, P being the most tokens that a row predicts.

    Gives `input_ids` [B, T] as they are (XLNet hides by the two masks), `attention_mask` [B, T], `perm_mask` [B, T, T]
    (1 where i does not see j), `target_mapping` [B, P, T] (1 where the p-th prediction is token t), `labels` [B, P].

    Args:
        context_per_token: K, one token in K is predicted.
        max_span_length: of the spans that are predicted.
        permuted_length: so many tokens in a row are permuted among each other, and come before those behind them; half
            of a row when left out.

    Raises:
        ValueError: a number that is too small.
    """

    context_per_token: int = 6
    max_span_length: int = 5
    permuted_length: int | None = None
    paper: ClassVar[str] = "1906.08237"
    model_inputs: ClassVar[frozenset[str]] = frozenset({"perm_mask", "target_mapping"})
    least_tokens: ClassVar[int] = 2
    """A lone token would have nothing to be predicted from."""

    def __post_init__(self):
        super().__post_init__()
        least = {"context_per_token": 2, "max_span_length": 1, "permuted_length": 1}
        for name, value in ((name, getattr(self, name)) for name in least):
            if value is not None and value < least[name]:
                raise ValueError(f"`{name}` should be at least {least[name]}, got {value}.")

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        drawn = [self._drawn(row) for row in rows]
        tokens = [one for one, _, _ in drawn]
        batch = self.padded_inputs(tokens)
        longest = batch["input_ids"].shape[1]
        predictions = max(int(predicted.sum()) for _, predicted, _ in drawn)
        hidden = torch.zeros(len(rows), longest, longest)
        mapping = torch.zeros(len(rows), predictions, longest)
        labels = torch.full((len(rows), predictions), IGNORED)
        for row, (own, predicted, sees) in enumerate(drawn):
            first = longest - len(own) if self.tokenizer.padding_side == "left" else 0
            real, indices = slice(first, first + len(own)), np.flatnonzero(predicted)
            hidden[row, real, real] = torch.from_numpy(~sees).float()
            mapping[row, range(len(indices)), indices + first] = 1
            labels[row, : len(indices)] = torch.from_numpy(own[indices])
        return {**batch, "perm_mask": hidden, "target_mapping": mapping, "labels": labels}

    def _drawn(self, row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens [T] of a row, which are predicted [T], and which sees which [T, T]."""
        tokens = self.tokens_of(row)
        generator, special = self.generator(row, tokens), self.is_structure(tokens)
        predicted = np.zeros(len(tokens), dtype=bool)
        predicted[~special] = predicted_tokens(
            int((~special).sum()), self.context_per_token, self.max_span_length, generator
        )
        ranks = permuted_ranks(len(tokens), self.permuted_length or -(-len(tokens) // 2), generator)
        return tokens, predicted, visible(np.where(predicted | special, ranks, -1), predicted)


def predicted_tokens(length: int, context_per_token: int, longest: int, generator: np.random.Generator) -> np.ndarray:
    """Which tokens of a text are predicted, [T] bool; max(1, T // context_per_token) of them.

    Args:
        length: T.
        context_per_token: K.
        longest: of the spans.
        generator: of the draws.
    """
    chosen = np.zeros(length, dtype=bool)
    missing, start = max(1, length // context_per_token), 0
    lengths = np.arange(1, longest + 1)
    while missing and start < length:
        span = min(int(generator.choice(lengths, p=(1 / lengths) / (1 / lengths).sum())), missing)
        context = span * context_per_token
        first = start + int(generator.integers(context - span + 1))
        chosen[first : first + span] = True
        missing -= max(0, min(span, length - first))
        start += context
    chosen[generator.choice(np.flatnonzero(~chosen), missing, replace=False)] = True
    return chosen


def permuted_ranks(length: int, part: int, generator: np.random.Generator) -> np.ndarray:
    """Places in the order of prediction, [T] int: random within each part of so many tokens, part after part."""
    parts = [np.arange(start, min(start + part, length)) for start in range(0, length, part)]
    return np.concatenate([generator.permutation(ranks) for ranks in parts])


def visible(ranks: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Whether token i sees token j, [T, T] bool: if rank_j < rank_i, or j has the rank -1; itself unless predicted.

    Args:
        ranks: [T] int, -1 for the tokens that all see.
        predicted: [T] bool, the tokens that are predicted.
    """
    sees = (ranks[None, :] < ranks[:, None]) | (ranks == -1)[None, :]
    return sees | np.diag(~predicted)
