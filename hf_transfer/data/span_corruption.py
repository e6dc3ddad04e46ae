"""Span corruption: spans of a text replaced by one sentinel each, and told behind these sentinels.

    inputs  = kept <0> kept <1> ... </s>        targets = <0> span <1> span ... </s>
    noise tokens = clip(round(noise_density * T), 1, T - 1)
    spans = max(1, round(noise tokens / mean_span_length))

Lengths of spans, and of what is kept before each, are random partitions. The loss is the model's, of the targets.

Paper: Raffel et al., JMLR 2020 (T5), https://huggingface.co/papers/1910.10683: 15 %, mean length 3. Partitions, the
raw length of a block (568 for inputs of 512) and the roll are from the released code. Special tokens of a row are left
out, as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, takewhile
from typing import Any, ClassVar

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset
from torch import Tensor

from hf_transfer.data.holes import column_of
from hf_transfer.data.text_collator import TextCollator, check_share

IGNORED = -100


@dataclass(frozen=True)
class SpanCorruptionCollator(TextCollator):
    """Gives `input_ids`, `attention_mask` [B, T] and `labels` [B, T'] (-100 in padding); the model shifts them itself.

    Args:
        noise_density: share of the tokens that are replaced.
        mean_span_length: of these, in tokens.
        roll: turn the spans of a row round by a random offset; left out, those of rows with one span, which would
            always be the end of the row.
        sentinels: tokens that stand for spans, in their order; `<extra_id_0>`, `<extra_id_1>` and so on of the
            tokenizer when left out.
        decoder_only: targets behind the inputs in one row [B, T + T'], for a causal model; `labels` [B, T + T'] are
            -100 on the inputs.

    Raises:
        ValueError: a number out of range, a tokenizer without an end token, or no sentinels.
    """

    noise_density: float = 0.15
    mean_span_length: float = 3.0
    roll: bool | None = None
    sentinels: tuple[str, ...] | None = None
    decoder_only: bool = False
    paper: ClassVar[str] = "1910.10683"
    keeps_structure: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        check_share("noise_density", self.noise_density, one=False)
        if self.mean_span_length < 1:
            raise ValueError(f"`mean_span_length` should be at least 1, got {self.mean_span_length}.")
        if self.tokenizer.eos_token_id is None:
            raise ValueError("span corruption ends inputs and targets: set the tokenizer's `eos_token`.")
        vocabulary = self.tokenizer.get_vocab()
        unknown = [name for name in self.sentinels or () if name not in vocabulary]
        if unknown:
            raise ValueError(f"`sentinels` names {unknown}, which the tokenizer does not have.")
        if not len(self.sentinel_ids):
            raise ValueError(
                "span corruption needs sentinels, and this tokenizer has no `<extra_id_0>`: add "
                "`tokenizer.add_tokens([f'<extra_id_{i}>' for i in range(100)], special_tokens=True)`, or name "
                "other tokens by `sentinels`; a run's own tokenizer gets them by {vocab_size: 4000, sentinels: 100}."
            )

    @cached_property
    def sentinel_ids(self) -> np.ndarray:
        """The numbers of the sentinels, [N] int."""
        vocabulary = self.tokenizer.get_vocab()
        names = self.sentinels or takewhile(vocabulary.__contains__, (f"<extra_id_{index}>" for index in count()))
        return np.array([vocabulary[name] for name in names], dtype=np.int64)

    def is_structure(self, tokens: np.ndarray) -> np.ndarray:
        """As TextCollator's; a sentinel in a text would be taken for one of a span."""
        return super().is_structure(tokens) | np.isin(tokens, self.sentinel_ids)

    def inserted_tokens(self) -> dict[str, int]:
        largest = int(self.sentinel_ids.max())
        return {f"sentinel {self.tokenizer.convert_ids_to_tokens(largest)}": largest}

    @property
    def for_encoder_decoder(self) -> bool:
        return not self.decoder_only

    def raw_length(self, length: int) -> int:
        return raw_length(length, self.noise_density, self.mean_span_length, self.roll, self.decoder_only)[0]

    def check_rows(self, rows: Dataset, role: str) -> None:
        """As TextCollator's; the sentinels suffice for the longest row, too."""
        super().check_rows(rows, role)
        self._sentinels_for(pc.max(pc.list_value_length(column_of(rows, "input_ids"))).as_py())

    def _sentinels_for(self, length: int) -> np.ndarray:
        """The sentinels, enough for a row of so many tokens.

        Raises:
            ValueError: there are fewer than the row can have spans.
        """
        ids, most = self.sentinel_ids, most_spans(length, self.noise_density, self.mean_span_length, self.roll)
        if most > len(ids):
            raise ValueError(
                f"a row of {length} tokens has {most} spans, and the tokenizer {len(ids)} sentinels: add more, cut "
                "the rows shorter (`max_length`, `block_size`), or take longer or fewer spans."
            )
        return ids

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        pairs = [self._corrupted(row) for row in rows]
        if not self.decoder_only:
            labels = self.padded([targets for _, targets in pairs], IGNORED, "right")
            return {**self.padded_inputs([inputs for inputs, _ in pairs]), "labels": labels}
        labels = [np.concatenate([np.full(len(inputs), IGNORED), targets]) for inputs, targets in pairs]
        return {**self.padded_inputs([np.concatenate(pair) for pair in pairs]), "labels": self.padded(labels, IGNORED)}

    def _corrupted(self, row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of a row, [T] and [T'], each with the end token."""
        tokens = self.tokens_of(row)
        generator = self.generator(row, tokens)
        text = tokens[~self.is_structure(tokens)]
        sentinels = self._sentinels_for(len(text))
        mask = noise_mask(len(text), self.noise_density, self.mean_span_length, generator, self.roll)
        inputs, targets = corrupted(text, mask, sentinels)
        end = [self.tokenizer.eos_token_id]
        return np.concatenate([inputs, end]), np.concatenate([targets, end])


def spans_of(length: int, noise_density: float, mean_span_length: float) -> tuple[int, int]:
    """How many tokens of a text of `length` are replaced, and in how many spans; a lone token is one itself."""
    noise = min(max(round(length * noise_density), 1), max(length - 1, 1))
    return noise, min(max(round(noise / mean_span_length), 1), max(length - noise, 1))


def most_spans(length: int, noise_density: float, mean_span_length: float, roll: bool | None) -> int:
    """In how many spans the tokens are at most, as a roll may part one in two; arguments as of `noise_mask`."""
    noise, spans = spans_of(length, noise_density, mean_span_length)
    return min(spans + (spans == 1 if roll is None else roll), noise, length - noise + 1)


def corrupted_lengths(
    length: int, noise_density: float, mean_span_length: float, roll: bool | None
) -> tuple[int, int]:
    """The most tokens of the inputs and of the targets of a text, with their end tokens; arguments as of
    `noise_mask`."""
    noise = spans_of(length, noise_density, mean_span_length)[0]
    spans = most_spans(length, noise_density, mean_span_length, roll)
    return length - noise + spans + 1, noise + spans + 1


def raw_length(
    inputs: int,
    noise_density: float = 0.15,
    mean_span_length: float = 3.0,
    roll: bool | None = None,
    decoder_only: bool = False,
) -> tuple[int, int]:
    """The most tokens of text whose corrupted inputs are at most so many, end token included; and its targets.

    Args:
        inputs: tokens that the model reads: 512 gives 568 and targets of 114. Targets are as long at most.
        noise_density: share of the tokens that are replaced.
        mean_span_length: of these, in tokens.
        roll: as `noise_mask` takes it.
        decoder_only: the model reads inputs and targets in one row.

    Raises:
        ValueError: no text is as short.
    """

    def row(raw: int) -> int:
        lengths = corrupted_lengths(raw, noise_density, mean_span_length, roll)
        return sum(lengths) if decoder_only else max(lengths)

    raw = 2
    if row(raw) > inputs:
        raise ValueError(f"a row of span corruption has at least {row(raw)} tokens, got a length of {inputs}.")
    while row(raw + 1) <= inputs:
        raw += 1
    return raw, corrupted_lengths(raw, noise_density, mean_span_length, roll)[1]


def noise_mask(
    length: int,
    noise_density: float,
    mean_span_length: float,
    generator: np.random.Generator,
    roll: bool | None = None,
) -> np.ndarray:
    """Which tokens of a text are replaced, [T] bool.

    Args:
        length: T.
        noise_density: share of the tokens that are replaced.
        mean_span_length: of these, in tokens.
        generator: of the draws.
        roll: turn the mask by a random offset; None where there is one span.
    """
    noise, spans = spans_of(length, noise_density, mean_span_length)
    if length == 1:
        return np.ones(1, dtype=bool)
    replaced, kept = random_partition(noise, spans, generator), random_partition(length - noise, spans, generator)
    mask = np.repeat(np.tile([False, True], spans), np.stack([kept, replaced], axis=1).flatten())
    return np.roll(mask, generator.integers(length)) if (spans == 1 if roll is None else roll) else mask


def random_partition(total: int, parts: int, generator: np.random.Generator) -> np.ndarray:
    """`total` as a sum of so many positive numbers, [parts] int, every such sum equally likely."""
    cuts = np.sort(generator.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def corrupted(text: np.ndarray, mask: np.ndarray, sentinels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets without the end token, [T] and [T'] int.

    Args:
        text: [T] int.
        mask: [T] bool, the tokens that are replaced.
        sentinels: [N] int, at least as many as there are spans.
    """
    first = mask & ~np.concatenate([[False], mask[:-1]])
    span = np.cumsum(first) - 1
    inputs = np.where(first, sentinels[np.maximum(span, 0)], text)[~mask | first]
    targets = np.insert(text[mask], np.flatnonzero(first[mask]), sentinels[: span[-1] + 1])
    return inputs, targets
