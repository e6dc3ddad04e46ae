"""Random changes of token sequences that keep their meaning: a few tokens are masked or dropped.

    x'_t = [MASK] with probability `share`, else x_t        (or x_t is left out, and the rest moves up)

The special tokens of the tokenizer, padding among them, always stay, and so does one ordinary token of every row.

Papers: word dropout, Iyyer et al., "Deep Unordered Composition Rivals Syntactic Methods", ACL 2015,
https://aclanthology.org/P15-1162; as the noise of consistency training, Xie et al., "Unsupervised Data Augmentation",
https://huggingface.co/papers/1904.12848, whose back-translation needs a second model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hf_transfer.functional.keyword_checks import require_share


@dataclass(frozen=True)
class TextAugmentation:
    """Weak and strong augmentation of `input_ids` [B, T], with whatever else has one entry a token.

    Args:
        tokenizer: knows the special tokens.
        weak_share: share of the ordinary tokens that a weak augmentation changes, in [0, 1).
        strong_share: share that a strong one changes, in [0, 1).
        change: "mask" or "drop"; masks where the tokenizer has a mask token when left out.

    Raises:
        ValueError: a keyword is out of its range, or the tokenizer has no mask token to mask with.
    """

    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    weak_share: float = 0.05
    strong_share: float = 0.2
    change: str | None = None

    def __post_init__(self):
        require_share(weak_share=self.weak_share, strong_share=self.strong_share)
        if self.change not in (None, "mask", "drop"):
            raise ValueError(f'`change` should be "mask" or "drop", got {self.change!r}.')
        if self.change == "mask" and self.tokenizer.mask_token_id is None:
            raise ValueError('this tokenizer has no mask token: let `change` be "drop".')

    def weak(self, inputs: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """A few tokens changed."""
        return self._changed(inputs, self.weak_share, generator)

    def strong(self, inputs: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Many tokens changed."""
        return self._changed(inputs, self.strong_share, generator)

    def _changed(self, inputs: Mapping[str, Tensor], share: float, generator: torch.Generator) -> dict[str, Tensor]:
        tokens = inputs["input_ids"]
        chosen = self._chosen(tokens, inputs.get("attention_mask"), share, generator)
        if self.change == "drop" or self.tokenizer.mask_token_id is None:
            return self._without(inputs, chosen)
        return {**inputs, "input_ids": tokens.masked_fill(chosen, self.tokenizer.mask_token_id)}

    def _chosen(self, tokens: Tensor, mask: Tensor | None, share: float, generator: torch.Generator) -> Tensor:
        """Which tokens change, [B, T] bool."""
        special = torch.tensor(self.tokenizer.all_special_ids, dtype=tokens.dtype)
        ordinary = ~torch.isin(tokens, special)
        if mask is not None:
            ordinary &= mask.bool()
        draws = torch.rand(tokens.shape, generator=generator).masked_fill(~ordinary, -1.0)
        survivor = torch.zeros_like(ordinary).scatter_(1, draws.argmax(dim=1, keepdim=True), True)
        return ordinary & (draws < share) & ~survivor

    def _without(self, inputs: Mapping[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
        """The chosen tokens left out; padding takes their place on the side where the tokenizer pads."""
        tokens = inputs["input_ids"]
        real = inputs["attention_mask"].bool() if "attention_mask" in inputs else torch.ones_like(chosen)
        kept = real & ~chosen
        pads_left = self.tokenizer.padding_side == "left"
        order = (kept if pads_left else ~kept).long().argsort(dim=1, stable=True)
        moved = {
            name: value.gather(1, order) if value.shape == tokens.shape else value for name, value in inputs.items()
        }
        kept = kept.gather(1, order)
        padding = self.tokenizer.pad_token_id or 0
        moved["input_ids"] = moved["input_ids"].masked_fill(~kept, padding)
        moved["attention_mask"] = kept.to(inputs.get("attention_mask", tokens).dtype)
        return moved
