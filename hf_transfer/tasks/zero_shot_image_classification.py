"""Pre-training on image-text pairs, measured by retrieval and by classification with the names of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from datasets import ClassLabel, Dataset
from transformers import (
    AutoConfig,
    EvalPrediction,
    PreTrainedConfig,
    VisionTextDualEncoderProcessor,
)
from transformers.processing_utils import ProcessorMixin
from transformers.utils import logging

from hf_transfer.data.captions import caption_column, ending_texts
from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.collators import PairCollator
from hf_transfer.evaluation.image_text import PROMPTS, PairMetrics, check_prompts
from hf_transfer.modeling.processors import stored_processor
from hf_transfer.modeling.two_towers import named_parts, tower_config
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.tasks.image import ImageTask
from hf_transfer.tasks.task import Metrics, Task
from hf_transfer.tasks.text import TextTask, with_padding
from hf_transfer.training.pairs_trainer import PairsTrainer

logger = logging.get_logger(__name__)

TEXTS, IMAGES = TextTask(), ImageTask()
"""What the task shares with those on texts and on images: how each half of the processor is had."""


class ZeroShotImageClassification(Task):
    """Images and texts that belong together; an objective (`clip`, `siglip`) says how."""

    name = "zero-shot-image-classification"
    reads = "image_text"
    auto_class = "AutoModel"
    reads_labels = False
    keeps_labels = True
    adapted_as = "prompted-image-classification"
    own_arguments = TextTask.own_arguments | {"prompts"}
    pretrainer = PairsTrainer

    def new_processor(self, model: ModelArguments, data: DataArguments, rows: Dataset) -> Any:
        """Image processor and tokenizer of a new model, or those of a saved one with the tokenizer that is named."""
        column = caption_column(rows, data.text_columns or ())
        check_prompts(data.prompts or PROMPTS)
        tokenizer = TEXTS.new_processor(model, replace(data, text_columns=[column]), rows)
        if isinstance(model.tokenizer, Mapping):
            tokenizer = ending_texts(tokenizer)
        if model.architecture is None:
            stored = (
                None
                if tokenizer is None
                else self.load_processor(model, AutoConfig.from_pretrained(model.model, **model.stored))
            )
            return None if tokenizer is None else VisionTextDualEncoderProcessor(stored.image_processor, tokenizer)
        towers = named_parts(model.architecture)
        if tokenizer is None and "text_config" not in towers:
            raise ValueError(
                "a new text tower has no tokenizer: give `tokenizer`, a name or {vocab_size: 4000} to train one on "
                "the captions."
            )
        if tokenizer is None:
            try:
                tokenizer = stored_processor("text", towers["text_config"])
            except ValueError as error:
                raise ValueError(
                    f"`{towers['text_config']}` has no tokenizer ({error}): give `tokenizer`, a name or "
                    "{vocab_size: 4000} to train one on the captions."
                ) from error
            tokenizer = with_padding(tokenizer, tower_config(towers["text_config"], "text_config"))
        return VisionTextDualEncoderProcessor(self._image_processor(model, towers), tokenizer)

    def _image_processor(self, model: ModelArguments, towers: Mapping[str, str]) -> Any:
        """That of the named tower, or a plain one of the size of the new tower."""
        named = towers.get("vision_config")
        if named is not None:
            config = tower_config(named, "vision_config")
        else:
            whole = AutoConfig.for_model(model.architecture["model_type"])
            if not hasattr(whole, "vision_config"):
                raise ValueError(
                    f"`architecture`: a {whole.model_type} has no image tower; take `model_type: "
                    "vision-text-dual-encoder`, `clip` or `siglip` for pairs of images and texts."
                )
            fields = {"model_type": whole.vision_config.model_type, **model.architecture.get("vision_config", {})}
            config = AutoConfig.for_model(**fields)
        made = IMAGES.load_processor(ModelArguments(model=named) if named else model, config)
        if made is None:
            raise ValueError("the size of the images is not known: give `image_size` in the `vision_config`.")
        return made

    def load_processor(self, model: ModelArguments, config: PreTrainedConfig) -> Any:
        """The stored processor of both towers.

        Raises:
            ValueError: the folder has none.
        """
        try:
            stored = stored_processor("image_text", model.model, **model.stored)
        except ValueError as error:
            raise ValueError(f"cannot load the processor of `{model.model}`: {error}") from error
        if not isinstance(stored, ProcessorMixin):
            raise ValueError(f"`{model.model}` has no processor for images and texts, only a {type(stored).__name__}.")
        return stored

    def sizes(
        self, architecture: Mapping[str, Any], data: DataArguments, rows: list[Dataset], processor: Any
    ) -> dict[str, Any]:
        """The vocabulary and the special tokens of a new text tower."""
        if isinstance(architecture.get("text_config"), str):
            return {}
        return {"text_config": TEXTS.sizes({}, data, rows, processor.tokenizer)}

    def collator(self, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable | None:
        return PairCollator(processor.tokenizer)

    def metrics(
        self, model: Any, processor: Any, rows: Dataset | None, data: DataArguments
    ) -> Callable[[EvalPrediction], Metrics] | None:
        """Recall in both directions; zero-shot accuracy where the labels of the rows have names."""
        labels = [rows.features[name] for name in LABEL_COLUMNS if name in rows.column_names]
        names = next((tuple(feature.names) for feature in labels if isinstance(feature, ClassLabel)), ())
        if labels and not names:
            logger.warning(
                "the labels of the evaluation rows have no names, so that no text says what a class is: use "
                'dataset.class_encode_column("label") for words. Retrieval alone is measured.'
            )
        prompts = tuple(data.prompts or PROMPTS)
        return PairMetrics(model, processor.tokenizer, names, prompts, data.max_length)
