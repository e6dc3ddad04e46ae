"""Text classification, and regression from texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from hf_transfer.data.captions import ending_texts
from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.class_names import WORDS
from hf_transfer.data.label_columns import label_names
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.tasks.text import TextTask

TEXT_COLUMNS = "text_columns"
"""Field of the configuration of a model that was trained here."""


class TextClassification(TextTask):
    """One class, several labels or numbers of a text or a pair of texts."""

    name = "text-classification"
    auto_class = "AutoModelForSequenceClassification"
    input_column = "input_ids"
    saved_as = ("ForSequenceClassification",)

    def settled(self, data: DataArguments, rows: Dataset) -> DataArguments:
        """The two texts of a pair in the order of the training rows, which other files may have turned round."""
        texts = [name for name, feature in rows.features.items() if getattr(feature, "dtype", None) in WORDS]
        texts = [name for name in texts if name not in (*LABEL_COLUMNS, *label_names(data.label_column))]
        return data if data.text_columns or len(texts) != 2 else replace(data, text_columns=texts)

    def remember(self, model: Any, data: DataArguments, rows: Dataset) -> None:
        """The columns that hold the text, where the user named them or there are two."""
        names = self.settled(data, rows).text_columns
        if names is not None or hasattr(model.config, TEXT_COLUMNS):
            setattr(model.config, TEXT_COLUMNS, names)

    def arranged(self, rows: Dataset, arguments: DataArguments, role: str) -> Dataset:
        pair = arguments.text_columns or []
        if len(pair) != 2 or not set(pair) <= set(rows.column_names):
            return rows
        others = [name for name in rows.column_names if name not in pair]
        return rows.select_columns([*pair, *others])

    def load_processor(self, model: ModelArguments, config: PreTrainedConfig) -> Any:
        """The stored tokenizer; behind every text its end token, where an encoder-decoder's head reads that alone."""
        tokenizer = super().load_processor(model, config)
        if not isinstance(tokenizer, PreTrainedTokenizerBase) or not config.is_encoder_decoder:
            return tokenizer
        return tokenizer if tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id else ending_texts(tokenizer)
