"""Masked language modelling whose masks depend on the row and the epoch alone.

transformers' collator draws from torch's generator, or from one of its own that runs on from batch to batch: what a
row's masks are then depends on the batches before it, on worker processes, and on whether a run was interrupted.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import DataCollatorForLanguageModeling

from hf_transfer.data.text_collator import TextCollator, check_embedded
from hf_transfer.data.visits import VISIT_COLUMN, row_seed

OF_THE_TOKENIZER = ("special_tokens_mask", "offset_mapping")


@dataclass(frozen=True)
class MaskingCollator:
    """transformers' masking with a generator for every row.

    A row that comes with its visit is masked anew in each epoch; one without, as in evaluation, is masked by its
    content: alike every time.

    Args:
        collator: how many tokens it hides and what stands in their place.
        vocabulary: of the model; random tokens are below it, where the tokenizer has more.
        seed: of the draws.
    """

    collator: DataCollatorForLanguageModeling
    vocabulary: int
    seed: int = 0
    reads_visits: ClassVar[bool] = True

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        masked = [self._masked(row) for row in rows]
        pad = replace(self.collator, mlm=False, whole_word_mask=False)
        batch = dict(pad([row for row, _ in masked]))
        batch["labels"] = torch.full_like(batch["input_ids"], -100)
        is_right = self.collator.tokenizer.padding_side == "right"
        for index, (_, labels) in enumerate(masked):
            where = slice(len(labels)) if is_right else slice(batch["labels"].shape[1] - len(labels), None)
            batch["labels"][index, where] = labels
        return batch

    def _masked(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor]:
        """The row with hidden tokens, and its labels [T]."""
        ids = torch.as_tensor(row["input_ids"]).long()
        masking = copy.copy(self.collator)
        masking.generator = torch.Generator().manual_seed(row_seed(row, ids.tolist(), self.seed))
        told = {name: torch.as_tensor(row[name]).unsqueeze(0) for name in OF_THE_TOKENIZER if name in row}
        hidden, labels = masking.torch_mask_tokens(ids.unsqueeze(0).clone(), **told)
        rest = {name: value for name, value in row.items() if name not in (*OF_THE_TOKENIZER, VISIT_COLUMN)}
        is_random = (hidden[0] != ids) & (hidden[0] != self.collator.tokenizer.mask_token_id)
        changed = torch.where(is_random, hidden[0] % self.vocabulary, hidden[0])
        return {**rest, "input_ids": as_given(changed, row["input_ids"])}, labels[0]


def as_given(values: Tensor, like: Any) -> Any:
    """A row's values [T] as a tensor, an array or a list, as `like` is: the tokenizer pads no mixture of columns."""
    if isinstance(like, Tensor):
        return values
    return values.numpy() if isinstance(like, np.ndarray) else values.tolist()


def repeatable(collator: Any, vocabulary: int | None, seed: int) -> Any:
    """The collator; one of masked language modelling as a MaskingCollator, a TextCollator as one for this model, and
    another that draws with this seed.

    Args:
        collator: of any kind.
        vocabulary: of the model; None where it has none.
        seed: of the draws.

    Raises:
        ValueError: the model has no embedding for the mask token, or for another that stands in for hidden ones.
    """
    if isinstance(collator, TextCollator):
        return collator.for_model(vocabulary, seed)
    if hasattr(collator, "seeded"):
        return collator.seeded(seed)
    if hasattr(collator, "collator") and not isinstance(collator, MaskingCollator):  # it adds views to a batch
        inner = repeatable(collator.collator, vocabulary, seed)
        return collator if inner is collator.collator else replace(collator, collator=inner)
    masks = isinstance(collator, DataCollatorForLanguageModeling) and collator.mlm and collator.return_tensors == "pt"
    if not masks or vocabulary is None:
        return collator
    check_embedded({"mask token": collator.tokenizer.mask_token_id}, vocabulary)
    return MaskingCollator(collator, vocabulary, seed)
