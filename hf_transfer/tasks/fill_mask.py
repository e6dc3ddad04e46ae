"""Masked language modelling: pre-training on texts without labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import Dataset
from transformers import DataCollatorForLanguageModeling

from hf_transfer.tasks.text import TextTask


class FillMask(TextTask):
    """Tokens hidden by chance, which the model fills in. A tokenizer without a mask token is refused."""

    name = "fill-mask"
    auto_class = "AutoModelForMaskedLM"
    reads_labels = False
    saved_as = ("ForMaskedLM",)

    def collator(self, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable | None:
        return DataCollatorForLanguageModeling(processor, mlm=True)
