"""Text classification, and regression from texts."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from hf_transfer.data.captions import ending_texts
from hf_transfer.tasks.arguments import ModelArguments
from hf_transfer.tasks.text import TextTask


class TextClassification(TextTask):
    """One class, several labels or numbers of a text or a pair of texts."""

    name = "text-classification"
    auto_class = "AutoModelForSequenceClassification"
    input_column = "input_ids"
    saved_as = ("ForSequenceClassification",)

    def load_processor(self, model: ModelArguments, config: PreTrainedConfig) -> Any:
        """The stored tokenizer; behind every text its end token, where an encoder-decoder's head reads that alone."""
        tokenizer = super().load_processor(model, config)
        if not isinstance(tokenizer, PreTrainedTokenizerBase) or not config.is_encoder_decoder:
            return tokenizer
        return tokenizer if tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id else ending_texts(tokenizer)
