"""Which token of a row stands for which word: the first one, whose label is the word's (Devlin et al. 2019)."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hf_transfer.core.objective import IGNORED_LABEL


def check_tokenizer(processor: Any) -> None:
    """Raises ValueError for what reads no words, or does not say which token is of which word."""
    if not isinstance(processor, PreTrainedTokenizerBase):
        raise ValueError("the rows hold words, and the model's folder has no tokenizer to read them.")
    if not isinstance(processor, PreTrainedTokenizerFast):
        raise ValueError(
            f"a {type(processor).__name__} does not say which token is of which word: use a model whose tokenizer is "
            "a fast one (with a tokenizer.json)."
        )


def first_tokens(word_ids: list[int | None], words: int) -> list[int]:
    """The index of the first token of every word, -1 for one without any."""
    found = [-1] * words
    for index, word in enumerate(word_ids):
        if word is not None and found[word] < 0:
            found[word] = index
    return found


def labels_at(firsts: list[int], tags: list[int], length: int) -> list[int]:
    """The labels of `length` tokens, of which the first of every word has its tag."""
    labels = [IGNORED_LABEL] * length
    for index, tag in zip(firsts, tags, strict=True):
        if index >= 0:
            labels[index] = tag
    return labels
