"""Causal language modelling: pre-training on texts without labels, measured by perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import signature
from typing import Any

from datasets import Dataset
from transformers import DataCollatorForLanguageModeling, default_data_collator

from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.tasks.arguments import DataArguments
from hf_transfer.tasks.task import Metrics
from hf_transfer.tasks.text import keep_or_clear
from hf_transfer.tasks.text_pretraining import TextPretraining

TEXT_BLOCK_SIZE = "text_block_size"
"""Of a saved model: tokens of a block of joined texts that it was trained on."""


class TextGeneration(TextPretraining):
    """Every token from those before it; packed documents, a random order (XLNet) or span corruption if asked."""

    name = "text-generation"
    auto_class = "AutoModelForCausalLM"
    saved_as = ("ForCausalLM", "LMHeadModel")
    makes = {"packed_language": {}, "permuted_language": {}, "span_corruption": {"decoder_only": True}}

    def remember(self, model: Any, data: DataArguments, rows: Dataset) -> None:
        """The length of the blocks, in which a perplexity is measured again."""
        keep_or_clear(model.config, TEXT_BLOCK_SIZE, data.block_size)

    def collator(self, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable | None:
        if "labels" in rows.column_names:
            return default_data_collator
        return DataCollatorForLanguageModeling(processor, mlm=False)

    def further_metrics(
        self, model: Any, processor: Any, data: DataArguments, seed: int
    ) -> Callable[[Metrics], Metrics]:
        """Perplexity: exp(mean loss of a token)."""
        if data.pretraining is None:
            check_next_token(model)
        return lambda metrics: {"perplexity": math.exp(metrics["loss"])} if "loss" in metrics else {}


def check_next_token(model: Any) -> None:
    """Raises ValueError for a model such as XLNet, which without a `target_mapping` sees what it is to predict."""
    base = unwrap_peft(model)
    if "target_mapping" in signature(base.forward).parameters:
        raise ValueError(
            f"a {type(base).__name__} does not predict the next token of a row, which it sees: train it by "
            "`pretraining: {permuted_language: {}}`, whose loss on held-out rows is its measure."
        )
