"""Pre-training of encoder-decoder models on texts without labels: spans or sentences that the decoder tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Dataset
from transformers import AutoConfig

from hf_transfer.tasks.arguments import DataArguments
from hf_transfer.tasks.text_pretraining import TextPretraining


class Text2TextGeneration(TextPretraining):
    """Span corruption, as T5 is trained, or denoising, as BART is."""

    name = "text2text-generation"
    auto_class = "AutoModelForSeq2SeqLM"
    saved_as = ("ForConditionalGeneration",)
    makes = {"span_corruption": {}, "denoising": {}}
    usual = "span_corruption"

    def sizes(
        self, architecture: Mapping[str, Any], data: DataArguments, rows: list[Dataset], processor: Any
    ) -> dict[str, Any]:
        """The vocabulary, the special tokens, and which token the decoder starts with."""
        sizes = super().sizes(architecture, data, rows, processor)
        if not sizes or architecture.get("model_type") is None:
            return sizes
        usual = AutoConfig.for_model(architecture["model_type"])
        starts_with_end = getattr(usual, "decoder_start_token_id", None) == usual.eos_token_id  # BART; T5 pads
        sizes["decoder_start_token_id"] = sizes["eos_token_id" if starts_with_end else "pad_token_id"]
        if getattr(usual, "forced_eos_token_id", None) is not None:
            sizes["forced_eos_token_id"] = sizes["eos_token_id"]
        return sizes
