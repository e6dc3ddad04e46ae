"""Load or build the model of a run, with its processor and, if asked, a PEFT adapter."""

from __future__ import annotations

from typing import Any

import peft
import transformers
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, PreTrainedConfig

from hf_transfer.data.images import image_processor
from hf_transfer.runs.arguments import ModelArguments

AUTO_CLASSES = {
    "image-classification": "AutoModelForImageClassification",
    "text-classification": "AutoModelForSequenceClassification",
    "masked-image-modeling": "AutoModelForMaskedImageModeling",
    "fill-mask": "AutoModelForMaskedLM",
    "text-generation": "AutoModelForCausalLM",
}
"""Kind of head -> the Auto class that has it."""


def auto_class(task: str) -> Any:
    """The Auto class of a task.

    Raises:
        ValueError: no such task.
    """
    if task not in AUTO_CLASSES:
        raise ValueError(f"unknown task `{task}`, accepted: {sorted(AUTO_CLASSES)}.")
    return getattr(transformers, AUTO_CLASSES[task])


def load_model(arguments: ModelArguments, class_names: list[str] | None = None, allow_new_weights: bool = True) -> Any:
    """The model with a head for `class_names`, new where the stored head has another number of classes.

    Args:
        arguments: where to start from.
        class_names: names of the classes; None for tasks without classes, or to keep the stored head.
        allow_new_weights: False refuses a folder that lacks weights, such as a backbone without its head.

    Raises:
        ValueError: the folder or Hub id is not a model, lacks weights, or the adapter's type is unknown.
    """
    loader = auto_class(arguments.task)
    labels = {}
    if class_names:
        labels = {"id2label": dict(enumerate(class_names)), "label2id": {n: i for i, n in enumerate(class_names)}}
    if arguments.architecture is not None:
        settings = {**arguments.architecture, **labels}
        model = loader.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    else:
        try:
            model, report = loader.from_pretrained(
                arguments.model,
                ignore_mismatched_sizes=True,
                trust_remote_code=arguments.trust_remote_code,
                output_loading_info=True,
                **labels,
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot load `{arguments.model}` for {arguments.task}: {error}") from error
        if report["missing_keys"] and not allow_new_weights:
            raise ValueError(
                f"`{arguments.model}` lacks weights for {arguments.task} ({sorted(report['missing_keys'])[:3]}): "
                "adapt it first."
            )
    return model if arguments.peft is None else with_adapter(model, arguments.peft)


def with_adapter(model: Any, settings: dict[str, Any]) -> peft.PeftModel:
    """The model under a new PEFT adapter; its head stays trainable.

    Args:
        model: a Hugging Face model.
        settings: keywords of the adapter's PEFT config, `peft_type` among them.

    Raises:
        ValueError: unknown or missing `peft_type`, or a wrong keyword.
    """
    try:
        config = peft.get_peft_config({**settings})
    except (KeyError, TypeError) as error:
        kinds = sorted(str(getattr(kind, "value", kind)) for kind in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING)
        raise ValueError(f"`peft` should name a `peft_type` of {kinds} and its keywords: {error!r}") from error
    return peft.get_peft_model(model, config)


def load_processor(arguments: ModelArguments, config: PreTrainedConfig) -> Any:
    """The tokenizer or image processor stored with the model; for images a plain one where there is none."""
    for loader in (AutoTokenizer, AutoImageProcessor) if arguments.model is not None else ():
        try:
            return loader.from_pretrained(arguments.model, trust_remote_code=arguments.trust_remote_code)
        except (OSError, ValueError, KeyError, TypeError, ImportError):
            continue
    if isinstance(getattr(config, "image_size", None), int) and hasattr(config, "num_channels"):
        return image_processor(config.image_size, config.num_channels)
    return None
