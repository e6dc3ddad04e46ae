"""Masked language modelling: pre-training on texts without labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import Dataset

from hf_transfer.data.masked_language import MaskedLanguageCollator
from hf_transfer.tasks.text_pretraining import TextPretraining


class FillMask(TextPretraining):
    """Tokens hidden by chance, which the model fills in. A tokenizer without a mask token is refused."""

    name = "fill-mask"
    auto_class = "AutoModelForMaskedLM"
    saved_as = ("ForMaskedLM",)
    makes = {"masked_language": {}}
    usual = "masked_language"

    def collator(self, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable | None:
        return MaskedLanguageCollator(processor)
