"""Text classification, and regression from texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from datasets import Audio, Dataset, Image
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from hf_transfer.data.captions import ending_texts
from hf_transfer.data.label_columns import label_names
from hf_transfer.data.text_columns import check_texts_as, texts_of_rows
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.tasks.text import TextTask, keep_or_clear

TEXT_COLUMNS = "text_columns"
"""Field of the configuration of a model that was trained here."""


class TextClassification(TextTask):
    """One class, several labels or numbers of a text or a pair of texts."""

    name = "text-classification"
    auto_class = "AutoModelForSequenceClassification"
    input_column = "input_ids"
    saved_as = ("ForSequenceClassification",)

    def settled(self, data: DataArguments, rows: Dataset) -> DataArguments:
        """With the one or two text columns of the training rows: other files may have turned a pair round, or have
        further ones."""
        are_others = any(isinstance(one, Image | Audio) for one in rows.features.values())
        if data.text_columns or are_others or "past_values" in rows.column_names:
            return data  # such rows are read as this task's until a run has one of its own
        texts = texts_of_rows(rows, label_names(data.label_column))
        return replace(data, text_columns=texts) if len(texts) in (1, 2) else data

    def remember(self, model: Any, data: DataArguments, rows: Dataset) -> None:
        """Also the columns that hold the text, where the user named them or there are one or two."""
        super().remember(model, data, rows)
        keep_or_clear(model.config, TEXT_COLUMNS, self.settled(data, rows).text_columns)

    def arranged(self, rows: Dataset, arguments: DataArguments, role: str) -> Dataset:
        pair = arguments.text_columns or []
        if not role.startswith("training") and self.input_column not in rows.column_names:
            check_texts_as(rows, pair, role, label_names(arguments.label_column))
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
