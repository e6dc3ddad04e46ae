"""Classification of images by a model with an image and a text tower: the classes are texts, and no head is new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import Dataset
from transformers import PreTrainedConfig

from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.evaluation.image_text import check_prompts
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.modeling.class_texts import (
    CONTEXT,
    PROMPT,
    TEXTS,
    USUAL_PROMPT,
    has_class_names,
    read_class_texts,
)
from hf_transfer.modeling.two_towers import TOWERS
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.tasks.zero_shot_image_classification import ZeroShotImageClassification

NO_CLASS = "image"
"""The name in the text of a model whose classes are of no use."""


class PromptedImageClassification(ZeroShotImageClassification):
    """One class of an image, as the name of the class in a text says it.

    Its units have features and logits as those of any classifier, so that what adapts a classifier to a task or a
    domain adapts a CLIP, a SigLIP or a VisionTextDualEncoderModel. The converter `coop` learns the text around the
    names and nothing else.
    """

    name = "prompted-image-classification"
    pipeline_tag = ZeroShotImageClassification.name
    reads = "image"
    reads_labels = True
    keeps_labels = False
    own_arguments = frozenset({"prompts"})

    def can_load(self, config: PreTrainedConfig | None) -> bool:
        return config is None or all(part in config.sub_configs for part in TOWERS)

    def new_processor(self, model: ModelArguments, data: DataArguments, rows: Dataset) -> None:
        if model.architecture is not None:
            raise ValueError(
                "texts say what classes are to a model that was trained on images with texts: start from a saved "
                "`model`, such as one that `hf-transfer pretrain` made with `task: zero-shot-image-classification`."
            )

    def remember(self, model: Any, data: DataArguments, rows: Dataset) -> None:
        """The prompt of the run."""
        config = unwrap_peft(model).config
        if not data.prompts:
            return
        check_prompts(data.prompts)
        if hasattr(config, CONTEXT):
            raise ValueError("`prompts` are what the converter `coop` learns: leave one of both out.")
        if len(data.prompts) > 1:
            raise ValueError(
                f"a class is one text in training, got {len(data.prompts)} `prompts`: give one of them. `hf-transfer "
                "evaluate --task zero-shot-image-classification` takes the mean of several."
            )
        setattr(config, PROMPT, data.prompts[0])

    def remembered(self, config: PreTrainedConfig | None) -> dict[str, Any]:
        return {"prompts": [getattr(config, PROMPT, USUAL_PROMPT)]} if hasattr(config, TEXTS) else {}

    def ready_for_features(self, config: PreTrainedConfig) -> None:
        """One class, as the text tower has to read some text."""
        if not has_class_names(config):
            config.id2label, config.label2id = {0: NO_CLASS}, {NO_CLASS: 0}

    def prepare(self, rows: Dataset, config: PreTrainedConfig, processor: Any, **reading: Any) -> Dataset:
        if config.problem_type not in (None, SINGLE_LABEL):
            raise ValueError(f"a text says one class of an image, and these labels are {config.problem_type}.")
        read_class_texts(config, processor.tokenizer)
        reading = {name: value for name, value in reading.items() if name not in ("text_columns", "max_length")}
        return super().prepare(rows, config, processor.image_processor, **reading)

    def collator(self, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable | None:
        return None
