"""Texts joined and cut into blocks of equal length, for causal language modelling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase


def language_blocks(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    block_size: int,
    text_column: str = "text",
    separated: bool = True,
) -> Dataset:
    """Rows of `block_size` tokens: `input_ids`, and the same as `labels` (a causal model shifts them itself).

    The texts are joined in their order with the end-of-text token behind each one; what is left over at the end is
    dropped.

    Args:
        dataset: rows of text.
        tokenizer: has an `eos_token`, or else a `sep_token`.
        block_size: tokens in a block.
        text_column: which column.
        separated: False puts nothing behind a text.

    Raises:
        ValueError: `block_size` below 2, no such token, or less text than one block.
    """
    if block_size < 2:
        raise ValueError(f"`block_size` should be at least 2, got {block_size}.")
    texts = joined_tokens(dataset, tokenizer, text_column, separated)
    blocks, rest = blocks_of(texts["input_ids"], block_size)
    if not blocks:
        raise ValueError(f"the text has {len(rest)} tokens, less than one block of `block_size={block_size}`.")
    return Dataset.from_dict({"input_ids": blocks, "labels": blocks}, features=block_features())


def joined_tokens(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, text_column: str, separated: bool) -> Dataset:
    """The tokens of every text under `input_ids`, with the separator behind them; arguments as of `language_blocks`.

    Raises:
        ValueError: the tokenizer has no such token.
    """
    separator = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if separator is None and separated:
        raise ValueError("the tokenizer has neither an `eos_token` nor a `sep_token` to put between texts.")

    def tokenize(rows: dict) -> dict:
        tokens = tokenizer(rows[text_column], add_special_tokens=False, verbose=False)["input_ids"]
        return {"input_ids": [[*text, separator] for text in tokens] if separated else tokens}

    return dataset.map(tokenize, batched=True, remove_columns=dataset.column_names, desc="Reading text")


def blocks_of(
    texts: Iterable[list[int]], block_size: int, rest: Sequence[int] = ()
) -> tuple[list[list[int]], list[int]]:
    """Blocks of so many tokens, and the tokens that are left over.

    Args:
        texts: tokens of each.
        block_size: of a block.
        rest: tokens that stand before the first text.
    """
    tokens = [*rest, *chain.from_iterable(texts)]
    whole = len(tokens) // block_size * block_size
    return [tokens[start : start + block_size] for start in range(0, whole, block_size)], tokens[whole:]


def block_features() -> Features:
    """Of rows that are blocks."""
    return Features({"input_ids": List(Value("int32")), "labels": List(Value("int64"))})
