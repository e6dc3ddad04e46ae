"""Masked language modelling: tokens or whole words hidden by chance, which the model fills in.

    loss = - mean over i in M of log p(x_i | x~)

M holds each token (or word) with the probability `probability`, and at least one of a row; in x~ a hidden token is the
mask token (0.8), a random one (0.1) or itself (0.1).

Paper: Devlin et al., NAACL 2019, https://huggingface.co/papers/1810.04805: 15 %, 80/10/10, and whole words from the
released code. 30 % as in Portes et al., NeurIPS 2023 (MosaicBERT), https://huggingface.co/papers/2312.17482.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import DataCollatorForLanguageModeling

from hf_transfer.data.masking import MaskingCollator
from hf_transfer.data.text_collator import TextCollator, check_share
from hf_transfer.data.word_starts import words_of


@dataclass(frozen=True)
class MaskedLanguageCollator(TextCollator):
    """Gives `input_ids`, `attention_mask` and `labels` [B, T], the hidden tokens in `labels` and -100 elsewhere.

    Args:
        probability: of a token, or a word, to be hidden.
        mask_share: of the hidden tokens that become the mask token.
        random_share: of those that become another token; the rest stay.
        whole_words: hide all tokens of a word or none.

    Raises:
        ValueError: a share out of range, or a tokenizer without a mask token.
    """

    probability: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    whole_words: bool = False
    paper: ClassVar[str] = "1810.04805"

    def __post_init__(self):
        super().__post_init__()
        check_share("probability", self.probability)
        check_share("mask_share", self.mask_share, positive=False)
        check_share("random_share", self.random_share, positive=False)
        if self.mask_share + self.random_share > 1:
            raise ValueError(
                f"`mask_share` and `random_share` should add up to at most 1, got {self.mask_share} and "
                f"{self.random_share}."
            )
        if self.tokenizer.mask_token_id is None:
            raise ValueError(
                "masked language modelling needs a mask token, and this tokenizer has none: set its `mask_token`; a "
                "new one of a run gets it by `tokenizer: {vocab_size: 4000, mask_token: true}`."
            )

    def inserted_tokens(self) -> dict[str, int]:
        return {"mask token": self.tokenizer.mask_token_id}

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        for row in rows:
            self.tokens_of(row)  # refuses one without text
        rows = [{name: value for name, value in row.items() if name != "labels"} for row in rows]
        hiding = Hiding(
            self.tokenizer,
            mlm_probability=1.0,  # of those that `Hiding` leaves
            mask_replace_prob=self.mask_share,
            random_replace_prob=self.random_share,
            probability=self.probability,
            by_words=self.whole_words,
        )
        return MaskingCollator(hiding, self.vocabulary or len(self.tokenizer), self.seed or 0)(rows)


@dataclass
class Hiding(DataCollatorForLanguageModeling):
    """transformers' masking of the tokens that are chosen here: of a row, by words if asked, and at least one.

    Args:
        probability: of a token, or a word, to be hidden.
        by_words: hide all tokens of a word or none.
    """

    probability: float = 0.15
    by_words: bool = False

    def torch_mask_tokens(
        self, inputs: Tensor, special_tokens_mask: Tensor | None = None, offset_mapping: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Inputs with hidden tokens, and labels, of one row [1, T]."""
        tokens = inputs[0].numpy()
        special = np.isin(tokens, self.tokenizer.all_special_ids)
        if special_tokens_mask is not None:
            special = special_tokens_mask[0].numpy().astype(bool)
        offsets = None if offset_mapping is None else offset_mapping[0].numpy()
        if self.by_words:
            words = words_of(self.tokenizer, tokens, special, offsets)
        else:
            words = np.where(special, -1, np.cumsum(~special) - 1)
        count = int(words.max(initial=-1)) + 1
        is_hidden = torch.zeros(count + 1, dtype=torch.bool)  # the last is that of special tokens
        is_hidden[:count] = torch.rand(count, generator=self.generator) < self.probability
        if count and not is_hidden.any():
            is_hidden[torch.randint(count, (1,), generator=self.generator)] = True
        stays = ~is_hidden[torch.from_numpy(words)]
        return super().torch_mask_tokens(inputs, special_tokens_mask=stays[None])
