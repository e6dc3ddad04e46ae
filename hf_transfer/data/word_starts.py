"""Which tokens of a row are parts of one word.

By the mark that the vocabulary puts on tokens: `##` on those that go on a word (WordPiece), `Ġ` (bytes) or `▁`
(SentencePiece) on those that begin one. Where rows have an `offset_mapping`, a word begins behind a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerBase

GOES_ON = "##"
BREAKS = {"Ġ": ("Ċ", "ĉ", "č"), "▁": ("\n", "\t", "\r")}
"""The mark of tokens that begin a word -> what stands for other white space, behind which one begins too."""


def words_of(
    tokenizer: PreTrainedTokenizerBase,
    tokens: np.ndarray,
    is_structure: np.ndarray,
    offsets: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """The number of each token's word, [T] int from 0 on, -1 for special tokens.

    Args:
        tokenizer: which made the tokens.
        tokens: [T].
        is_structure: [T] bool, the special tokens, which are between words.
        offsets: where each token begins and ends in the text, [T, 2]; the vocabulary's marks when left out.

    Raises:
        ValueError: the vocabulary has no mark, and no offsets are given.
    """
    if offsets is None:
        begins, ends = word_marks(tokenizer)
        begins, ends = begins[tokens], ends[tokens]
    else:
        bounds = np.asarray(offsets)
        begins = np.ones(len(tokens), dtype=bool)
        begins[1:] = bounds[1:, 0] != bounds[:-1, 1]
        ends = np.zeros(len(tokens), dtype=bool)
    behind = np.ones(len(tokens), dtype=bool)
    behind[1:] = is_structure[:-1] | ends[:-1]
    numbers = np.cumsum((begins | behind) & ~is_structure) - 1
    return np.where(is_structure, -1, numbers)


def word_marks(tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """Of every token of the vocabulary, whether it begins a word and whether the next one must, [V] bool each.

    Raises:
        ValueError: the vocabulary has no mark that this reads.
    """
    return _marks(tokenizer, len(tokenizer))


@lru_cache(maxsize=8)
def _marks(tokenizer: PreTrainedTokenizerBase, size: int) -> tuple[np.ndarray, np.ndarray]:
    vocabulary = tokenizer.convert_ids_to_tokens(range(size))
    if isinstance(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None), WordLevel):
        return np.ones(size, dtype=bool), np.zeros(size, dtype=bool)
    marks = (GOES_ON, *BREAKS)
    counts = {mark: sum(token.startswith(mark) for token in vocabulary) for mark in marks}
    mark = max(counts, key=counts.__getitem__)
    if not counts[mark]:
        raise ValueError(
            f"the tokenizer's vocabulary marks no words: none of its {size} tokens starts with one of "
            f"{list(marks)}. Give rows an `offset_mapping` (with `remove_unused_columns=False`), or leave "
            "`whole_words` out."
        )
    if mark == GOES_ON:
        return np.array([not token.startswith(mark) for token in vocabulary]), np.zeros(size, dtype=bool)
    return (
        np.array([token.startswith((mark, *BREAKS[mark])) for token in vocabulary]),
        np.array([token.endswith(BREAKS[mark]) for token in vocabulary]),
    )
