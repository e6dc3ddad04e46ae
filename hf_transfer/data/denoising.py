"""Denoising: sentences in another order and spans of words behind one mask each; the model tells the original.

    budget = ceil(mask_share * words), span lengths ~ Poisson(mean_span_length) until they add up to it
    labels = the original

Every span becomes one mask token; one of length 0 is a mask put in between words, as long as there are no more spans
than masked words. Spans do not overlap: kept words and spans are shuffled as pieces of one row. A mask is, with the
probability `random_share`, a random token instead.

Paper: Lewis et al., ACL 2020 (BART), https://huggingface.co/papers/1910.13461: 30 %, mean length 3, all sentences
permuted. The budget by row, whole words and random tokens are from the released code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from hf_transfer.data.text_collator import TextCollator, check_share, is_real
from hf_transfer.data.word_starts import words_of

IGNORED = -100
END_MARK, BLANKS = ".", "ĠĊĉč▁"


@dataclass(frozen=True)
class DenoisingCollator(TextCollator):
    """Gives `input_ids`, `attention_mask` [B, T] and `labels` [B, T'] (-100 in padding); the model shifts them itself.

    Special tokens are not masked, and a row ends with the end token. Those around the text keep their places; one
    between texts ends a sentence and moves with it.

    Args:
        mask_share: of the words that are masked.
        mean_span_length: of the spans, in words.
        random_share: of the masks that are another token instead.
        permute_sentences: share of the sentences that change places.
        whole_words: count and mask words; False counts and masks tokens.

    Raises:
        ValueError: a number out of range, or a tokenizer without a mask or an end token.
    """

    mask_share: float = 0.3
    mean_span_length: float = 3.0
    random_share: float = 0.0
    permute_sentences: float = 1.0
    whole_words: bool = True
    paper: ClassVar[str] = "1910.13461"
    for_encoder_decoder: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        check_share("mask_share", self.mask_share)
        check_share("random_share", self.random_share, positive=False)
        check_share("permute_sentences", self.permute_sentences, positive=False)
        if self.mean_span_length <= 0:
            raise ValueError(f"`mean_span_length` should be positive, got {self.mean_span_length}.")
        for name in ("mask_token", "eos_token"):
            if getattr(self.tokenizer, name) is None:
                raise ValueError(
                    f"denoising needs a `{name}`, and this tokenizer has none: set it; a new one of a run gets a mask "
                    "token by `tokenizer: {vocab_size: 4000, mask_token: true}`."
                )

    def inserted_tokens(self) -> dict[str, int]:
        return {"mask token": self.tokenizer.mask_token_id}

    def raw_length(self, length: int) -> int:
        return length - 1  # of an end token that is put behind; masks make no row longer

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        pairs = [self._noised(row) for row in rows]
        labels = self.padded([original for _, original in pairs], IGNORED, "right")
        return {**self.padded_inputs([noised for noised, _ in pairs]), "labels": labels}

    def _noised(self, row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The noised row [T] and the original [T']."""
        tokens = self.tokens_of(row)
        generator = self.generator(row, tokens)
        offsets = np.asarray(row["offset_mapping"])[is_real(row)] if "offset_mapping" in row else None
        if tokens[-1] != self.tokenizer.eos_token_id:
            tokens = np.append(tokens, self.tokenizer.eos_token_id)
            offsets = None if offsets is None else np.append(offsets, [[0, 0]], axis=0)
        words = self._words(tokens, offsets)
        order = permuted_sentences(self._ends_sentence(tokens, words), words, self.permute_sentences, generator)
        return self._infilled(tokens[order], words[order], generator), tokens

    def _words(self, tokens: np.ndarray, offsets: np.ndarray | None) -> np.ndarray:
        """The number of each token's word, or of the token itself, [T] int, -1 for special tokens."""
        special = self.is_structure(tokens)
        if self.whole_words:
            return words_of(self.tokenizer, tokens, special, offsets)
        return np.where(special, -1, np.cumsum(~special) - 1)

    def _ends_sentence(self, tokens: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Which of the tokens [T] are the last of their word, hold a full stop and neither letter nor digit."""
        texts = self.tokenizer.convert_ids_to_tokens(tokens.tolist())
        stops = np.array([END_MARK in text and not any(map(str.isalnum, text.strip(BLANKS))) for text in texts])
        is_last = np.append(words[1:] != words[:-1], True)
        return stops & is_last & (words >= 0)

    def _infilled(self, tokens: np.ndarray, words: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The row [T] with its spans masked.

        Args:
            tokens: [T] int.
            words: [T] int, equal numbers are one word, -1 is a special token.
            generator: of the draws.
        """
        first = word_begins(words)
        starts = np.flatnonzero(first)  # [W], of words in their present order
        lengths = span_lengths(len(starts), self.mask_share, self.mean_span_length, generator)
        kept = len(starts) - int(lengths.sum())
        pieces = generator.permutation(np.concatenate([np.full(kept, -1), lengths]))
        is_masked, masks = np.zeros(len(starts), dtype=bool), []
        word = 0
        for length in pieces.tolist():
            if length >= 0:
                is_masked[word : word + length] = True
                masks.append(starts[word] if word < len(starts) else self._end_of(words))
            word += 1 if length < 0 else length
        number = np.where(words >= 0, np.cumsum(first) - 1, -1)
        hidden = np.append(is_masked, False)[number]  # the last is that of special tokens
        behind = np.cumsum(np.append(0, ~hidden))[np.array(masks, dtype=int)]
        return np.insert(tokens[~hidden], behind, self._masks(len(masks), generator))

    def _end_of(self, words: np.ndarray) -> int:
        """The place behind the last word."""
        return int(np.flatnonzero(words >= 0)[-1]) + 1

    def _masks(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """So many mask tokens, some of them random ones, [count] int."""
        masks = np.full(count, self.tokenizer.mask_token_id)
        if not self.random_share:
            return masks
        return np.where(generator.random(count) < self.random_share, self._random_tokens(count, generator), masks)

    def _random_tokens(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """So many tokens, none of them special, [count] int."""
        tokens = generator.integers(self.vocabulary or len(self.tokenizer), size=count)
        while (special := np.isin(tokens, self.tokenizer.all_special_ids)).any():
            tokens[special] = generator.integers(self.vocabulary or len(self.tokenizer), size=int(special.sum()))
        return tokens


def word_begins(words: np.ndarray) -> np.ndarray:
    """Which tokens are the first of a word, [T] bool, where equal numbers [T] side by side are one word."""
    return (words >= 0) & np.concatenate([[True], words[1:] != words[:-1]])


def span_lengths(words: int, share: float, mean: float, generator: np.random.Generator) -> np.ndarray:
    """Lengths of spans, [N] int, which add up to ceil(share * words) and are no more; 0 stands for a mask put in."""
    budget = missing = math.ceil(share * words)
    lengths: list[int] = []
    while missing:
        lengths.append(min(int(generator.poisson(mean)), missing))
        missing -= lengths[-1]
    too_many = max(0, len(lengths) - budget)
    return np.delete(lengths, np.flatnonzero(np.array(lengths) == 0)[:too_many])


def permuted_sentences(
    ends: np.ndarray, words: np.ndarray, share: float, generator: np.random.Generator
) -> np.ndarray:
    """Places of the tokens with so many sentences exchanged, [T] int; what is around the text stays where it is.

    Args:
        ends: [T] bool, the last tokens of sentences; the last of the text is one anyway.
        words: [T] int, -1 for special tokens, of which one between words belongs to the sentence before it.
        share: of the sentences, rounded up.
        generator: of the draws.
    """
    inside = np.flatnonzero(words >= 0)
    text = np.arange(inside[0], inside[-1] + 1)
    special = np.append(words < 0, False)[text + 1]  # behind each of the tokens
    last = (ends | (words < 0))[text] & ~special
    sentences = [part for part in np.split(text, np.flatnonzero(last) + 1) if len(part)]
    chosen = generator.permutation(len(sentences))[: math.ceil(share * len(sentences))]
    indices = np.arange(len(sentences))
    indices[chosen] = chosen[generator.permutation(len(chosen))]
    order = np.arange(len(words))
    order[text] = np.concatenate([sentences[index] for index in indices])
    return order
