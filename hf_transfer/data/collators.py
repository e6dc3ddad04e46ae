"""Collators for rows of different lengths that no tokenizer pads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hf_transfer.data.checks import LABEL_COLUMNS


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
