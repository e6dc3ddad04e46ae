"""Collators for rows of different lengths that no tokenizer pads, and for pairs of an image and a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from hf_transfer.data.checks import LABEL_COLUMNS

TOKEN_COLUMNS = ("input_ids", "attention_mask", "token_type_ids")
"""Inputs of a text tower that have a number for every token."""


@dataclass(frozen=True)
class PaddingCollator:
    """Pads one column of every row to the longest of the batch, and says where its real steps are.

    Gives `column` [B, T] or [B, T, C], `attention_mask` [B, T] (1 = real), and `labels` [B] and `domain` [B] where
    rows have them.

    Args:
        column: `input_ids` or `past_values`.
        padding_value: what stands behind the last real step.
    """

    column: str
    padding_value: float = 0

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        dtype = torch.long if self.column == "input_ids" else torch.float32
        values = [torch.as_tensor(row[self.column], dtype=dtype) for row in rows]
        batch = {
            self.column: pad_sequence(values, batch_first=True, padding_value=self.padding_value),
            "attention_mask": pad_sequence([torch.ones(len(value), dtype=torch.long) for value in values], True),
        }
        labels = next((name for name in LABEL_COLUMNS if name in rows[0]), None)
        if labels is not None:
            batch["labels"] = torch.as_tensor([row[labels] for row in rows])
        if "domain" in rows[0]:
            batch["domain"] = torch.as_tensor([row["domain"] for row in rows])
        return batch


@dataclass(frozen=True)
class PairCollator:
    """A batch of image-text pairs: `pixel_values` [B, C, H, W] and the tokens [B, T], padded to the longest text.

    Also `labels` [B] where rows have them.

    Args:
        tokenizer: pads the tokens, which carry its names.
    """

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        names = [name for name in rows[0] if name in TOKEN_COLUMNS]
        tokens = [{name: torch.as_tensor(row[name]).tolist() for name in names} for row in rows]
        batch = {"pixel_values": torch.stack([torch.as_tensor(row["pixel_values"]) for row in rows])}
        batch |= self.tokenizer.pad(tokens, return_tensors="pt")
        labels = next((name for name in LABEL_COLUMNS if name in rows[0]), None)
        return batch if labels is None else {**batch, "labels": torch.as_tensor([int(row[labels]) for row in rows])}
