"""Image-GPT: pre-training on images as sequences of colours, from left to right or with hidden pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from datasets import Dataset, Image
from transformers import AutoModelForCausalLM, ImageGPTConfig, ImageGPTForCausalImageModeling

from hf_transfer.data.pixel_clusters import pixel_processor
from hf_transfer.data.pixel_tokens import (
    MaskedPixelCollator,
    NextPixelCollator,
    reads_pixel_tokens,
    start_token,
)
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.tasks.image import ImageTask

OF_THE_ROWS = {"rows", "column"}


class PixelTask(ImageTask):
    """Images as tokens, one a pixel; `pixels: {clusters: 512, size: 32}` says how many colours and how large."""

    reads_labels = False
    own_arguments = frozenset({"pixels"})
    is_causal = True

    def new_processor(self, model: ModelArguments, data: DataArguments, rows: Dataset) -> Any:
        """Of an architecture, one with clusters of the training pixels' colours; None for the model's own."""
        if model.model is not None:
            if data.pixels is not None:
                raise ValueError("`pixels` makes the colours of an `architecture`; a saved `model` has its own.")
            return None
        settings = dict(data.pixels or {})
        accepted = set(signature(pixel_processor).parameters) - OF_THE_ROWS
        unknown = sorted(set(settings) - accepted)
        if unknown:
            raise ValueError(f"`pixels` has no {unknown}, accepted: {sorted(accepted)}.")
        column = next((name for name, feature in rows.features.items() if isinstance(feature, Image)), None)
        if column is None:
            raise ValueError(f"{self.name} reads images, and no column of {rows.column_names} holds any.")
        return pixel_processor(rows, column, **settings)

    def load_processor(self, model: ModelArguments, config: Any) -> Any:
        processor = super().load_processor(model, config)
        if not reads_pixel_tokens(processor):
            raise ValueError(f"`{model.model}` has no image processor with colour clusters: it reads no pixel tokens.")
        return processor

    def sizes(
        self, architecture: Mapping[str, Any], data: DataArguments, rows: list[Dataset], processor: Any
    ) -> dict[str, Any]:
        """The colours and the start token, and a position for each pixel and for this."""
        start, side = start_token(processor), processor.size["height"]
        sizes = {"vocab_size": start + 1, "max_position_embeddings": side * side + 1, "bos_token_id": start}
        kind = architecture.get("model_type")
        return {**sizes, "is_causal": self.is_causal} if kind == "flowformer" else sizes


class CausalImageModeling(PixelTask):
    """Each pixel from those before it: ImageGPT, GPT-2 or a causal Flowformer."""

    name = "causal-image-modeling"
    auto_class = "AutoModelForCausalLM"

    def model_class(self) -> Any:
        AutoModelForCausalLM.register(ImageGPTConfig, ImageGPTForCausalImageModeling, exist_ok=True)
        return super().model_class()

    def collator(self, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable:
        return NextPixelCollator()


class MaskedPixelModeling(PixelTask):
    """Hidden pixels from all others: a Flowformer or a BERT."""

    name = "masked-pixel-modeling"
    auto_class = "AutoModelForMaskedLM"
    is_causal = False

    def collator(self, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable:
        return MaskedPixelCollator(start_token(processor))
