"""Documents packed into one row for causal language modelling, none of which sees or predicts another.

    loss = - mean over documents d and their tokens t > 0 of log p(x_dt | x_d0 ... x_d(t-1))

Positions begin anew with every document, and its first token is no label: the loss is that of the documents alone,
each in a row of its own, without any padding. transformers' DataCollatorWithFlattening lays them out; the model has to
keep them apart, which `hf_transfer.modeling.packing` tries out before a training.

Paper: Krell et al. 2021, https://huggingface.co/papers/2107.02027, for packing without contamination.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from transformers import DataCollatorWithFlattening

from hf_transfer.data.text_collator import TextCollator


@dataclass(frozen=True)
class PackingCollator(TextCollator):
    """Gives `input_ids`, `position_ids` and `labels` [1, T], T being the tokens of all documents of the batch.

    Args:
        end_documents: put the end token behind a document that has none, so that the model learns to stop.

    Raises:
        ValueError: there is no end token to put there.
    """

    end_documents: bool = True
    paper: ClassVar[str] = "2107.02027"
    model_inputs: ClassVar[frozenset[str]] = frozenset({"position_ids"})
    for_encoder_decoder: ClassVar[bool] = False
    reads_blocks: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        if self.end_documents and self.tokenizer.eos_token_id is None:
            raise ValueError("`end_documents` needs the tokenizer's `eos_token`: set it, or say false.")

    @property
    def least_tokens(self) -> int:
        """A document of one token predicts none."""
        return 1 if self.end_documents else 2

    def raw_length(self, length: int) -> int:
        return length - self.end_documents

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        documents = [{"input_ids": self._document(row)} for row in rows]
        return dict(DataCollatorWithFlattening()(documents))

    def _document(self, row: Mapping[str, Any]) -> list[int]:
        tokens = self.tokens_of(row)
        end = self.tokenizer.eos_token_id
        has_end = not self.end_documents or tokens[-1] == end
        return (tokens if has_end else np.append(tokens, end)).tolist()
