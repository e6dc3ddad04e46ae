"""What the collators of text pre-training share: rows of tokens, and draws that follow seed, epoch and row alone.

A row that comes with its visit is drawn anew in each epoch; one without, as in evaluation, by its content: alike every
time. So a row does not depend on its batch, on worker processes or on an interruption of the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from hf_transfer.data.holes import column_of, refuse_rows
from hf_transfer.data.visits import row_seed
from hf_transfer.data.word_starts import word_marks

STRUCTURE = ("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "pad_token_id", "mask_token_id")
"""Special tokens that are no text; the unknown token stands for text."""
AROUND_A_PAIR = 4
"""The most special tokens that a tokenizer puts around and between two texts."""


@dataclass(frozen=True)
class TextCollator:
    """Makes a batch of rows of tokens; a subclass says what becomes of one row.

    Args:
        tokenizer: which made the rows; it has a padding token.
        seed: of the draws; that of the training when left out.
        vocabulary: of the model; that of the tokenizer when left out.

    Raises:
        ValueError: the tokenizer has no padding token.
    """

    tokenizer: PreTrainedTokenizerBase
    seed: int | None = field(default=None, kw_only=True)
    vocabulary: int | None = field(default=None, kw_only=True)
    reads_visits: ClassVar[bool] = True
    paper: ClassVar[str] = ""
    model_inputs: ClassVar[frozenset[str]] = frozenset()
    """Inputs that not every language model has."""
    for_encoder_decoder: ClassVar[bool | None] = None
    """Whether labels are another row than the inputs; None where either kind of model can be trained."""
    reads_blocks: ClassVar[bool] = True
    """Whether rows may be cut anywhere from joined texts."""
    keeps_structure: ClassVar[bool] = True
    """Whether special tokens of a row, such as those between joined texts, are part of what is made of it."""
    least_tokens: ClassVar[int] = 1
    """Tokens of text, special ones apart, without which there is nothing to predict in a row."""

    def __post_init__(self):
        if self.tokenizer.pad_token_id is None:
            raise ValueError(f"{type(self).__name__} pads rows: set the tokenizer's `pad_token`.")

    def inserted_tokens(self) -> dict[str, int]:
        """The tokens that stand in for hidden ones, by what a message calls them."""
        return {}

    def for_model(self, vocabulary: int | None, seed: int) -> Self:
        """The same with what was left out.

        Args:
            vocabulary: of the model; None where it has none.
            seed: of the training.

        Raises:
            ValueError: the model has no embedding for an inserted token.
        """
        told = {"seed": seed if self.seed is None else self.seed, "vocabulary": self.vocabulary or vocabulary}
        made = replace(self, **told)
        if made.vocabulary is not None:
            check_embedded(made.inserted_tokens(), made.vocabulary)
        return made

    def raw_length(self, length: int) -> int:
        """The most tokens of a text, special ones included, of which no row of the model is longer than `length`."""
        return length

    def check_model(self, model: Any) -> None:
        """Refuse a model that cannot be trained on these batches, before any training.

        Args:
            model: a Hugging Face model, not a PEFT model around one.

        Raises:
            ValueError: it lacks an input, or is an encoder-decoder model where a single stack is needed, or the other
                way round.
        """
        name = f"a {type(model).__name__}"
        missing = sorted(self.model_inputs - set(signature(model.forward).parameters))
        if missing:
            raise ValueError(f"{type(self).__name__} gives {missing}, which {name} does not take: choose another.")
        has_decoder = bool(getattr(model.config, "is_encoder_decoder", False))
        if self.for_encoder_decoder is not None and self.for_encoder_decoder != has_decoder:
            kinds = "encoder-decoder models", "models of one stack"
            wanted, found = kinds if self.for_encoder_decoder else kinds[::-1]
            raise ValueError(f"{type(self).__name__} makes batches for {wanted}, and {name} is one of the {found}.")

    def check_rows(self, rows: Dataset, role: str) -> None:
        """Refuse rows that this collator can make nothing of, before any training.

        Args:
            rows: with a column `input_ids`.
            role: what the data set is for, for the message.

        Raises:
            ValueError: a row has fewer than `least_tokens`, or whole words are asked for and nothing marks them.
        """
        if getattr(self, "whole_words", False) and "offset_mapping" not in rows.column_names:
            word_marks(self.tokenizer)
        tokens = column_of(rows, "input_ids")
        lengths = pc.list_value_length(tokens).to_numpy(zero_copy_only=False)
        doubtful = np.flatnonzero(lengths < self.least_tokens + AROUND_A_PAIR)
        short = [index for index in doubtful if self._lacks(tokens, index)]
        if short:
            complaint = f"has fewer than {self.least_tokens} tokens of text"
            refuse_rows(rows, "input_ids", np.asarray(short), role, complaint)

    def _lacks(self, tokens: Any, index: int) -> bool:
        return int((~self.is_structure(np.asarray(tokens[int(index)].as_py(), dtype=int))).sum()) < self.least_tokens

    def is_structure(self, tokens: np.ndarray) -> np.ndarray:
        """Which of the tokens [T] are special ones that are no text, [T] bool."""
        known = [getattr(self.tokenizer, name) for name in STRUCTURE]
        return np.isin(tokens, [one for one in known if one is not None])

    def tokens_of(self, row: Mapping[str, Any]) -> np.ndarray:
        """The tokens [T] of a row, without padding.

        Raises:
            ValueError: there are fewer than `least_tokens`, special ones apart.
        """
        tokens = np.asarray(row["input_ids"], dtype=np.int64)[is_real(row)]
        if int((~self.is_structure(tokens)).sum()) < self.least_tokens:
            raise ValueError(
                f"{type(self).__name__} needs rows of at least {self.least_tokens} tokens of text, special ones "
                f"apart, got {tokens.tolist()}: leave such rows out."
            )
        return tokens

    def generator(self, row: Mapping[str, Any], tokens: np.ndarray) -> np.random.Generator:
        """What draws for this row of tokens [T]."""
        return np.random.default_rng(row_seed(row, tokens.tolist(), self.seed or 0))

    def padded(self, rows: Sequence[np.ndarray], value: int, side: str | None = None) -> Tensor:
        """Rows of different lengths as one tensor [B, T], filled up on the tokenizer's side.

        Args:
            rows: [T] each.
            value: behind, or in front of, the real ones.
            side: "left" or "right"; the tokenizer's when left out.
        """
        side = side or self.tokenizer.padding_side
        return pad_sequence([torch.from_numpy(np.asarray(row, dtype=np.int64)) for row in rows], True, value, side)

    def padded_inputs(self, rows: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, [B, T] each."""
        ones = [np.ones(len(row), dtype=np.int64) for row in rows]
        return {
            "input_ids": self.padded(rows, self.tokenizer.pad_token_id),
            "attention_mask": self.padded(ones, 0),
        }


def is_real(row: Mapping[str, Any]) -> np.ndarray | slice:
    """Which of a row's tokens are not padding, as an index."""
    return np.asarray(row["attention_mask"]).astype(bool) if "attention_mask" in row else slice(None)


def check_embedded(tokens: Mapping[str, int], vocabulary: int) -> None:
    """Raises ValueError when a model with so many embeddings has none for one of the tokens.

    Args:
        tokens: number of each token by what the message calls it.
        vocabulary: of the model.
    """
    for name, number in tokens.items():
        if number >= vocabulary:
            raise ValueError(
                f"the tokenizer's {name} has the number {number}, and the model a vocabulary of {vocabulary}: call "
                "`model.resize_token_embeddings(len(tokenizer))`, or use the model's own tokenizer."
            )


def check_share(name: str, value: float, *, positive: bool = True, one: bool = True) -> None:
    """Raises ValueError when a keyword is no share of a whole.

    Args:
        name: of the keyword.
        value: that it has.
        positive: whether 0 is refused.
        one: whether 1 is accepted.
    """
    accepted = f"{'(' if positive else '['}0, 1{']' if one else ')'}"
    if not 0 <= value <= 1 or (positive and value == 0) or (not one and value == 1):
        raise ValueError(f"`{name}` should be in {accepted}, got {value}.")
