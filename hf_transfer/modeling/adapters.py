"""Load a PEFT adapter for ranking: its base model with the adapter's layers inside."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import transformers
from peft import PeftConfig, PeftModel, PeftType
from safetensors import safe_open
from torch import nn

from hf_transfer.models.revisions import pinned

TASK_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}
ADAPTED_CLASSES = (
    "ForImageClassification",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForCausalLM",
)
"""Ends of the names of the classes that an adapter without a task type may have been trained on."""
WEIGHTS = "adapter_model.safetensors"
HEADS = (".classifier.weight", ".score.weight", ".classifier.out_proj.weight", ".qa_outputs.weight")


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter and not a whole model."""
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def lost_encoder(config: PeftConfig) -> bool:
    """Whether virtual tokens came out of an encoder in training, of which the folder holds the answer alone."""
    return config.peft_type == PeftType.P_TUNING or bool(getattr(config, "prefix_projection", False))


def load_adapted(folder: Path, fetch_base: Callable[[str], Path], **options) -> nn.Module:
    """The whole adapted model (with its head), the adapter's layers injected.

    Args:
        folder: the adapter.
        fetch_base: gives the folder of the base model's name.
        options: for `from_pretrained` of the base model.

    Raises:
        ValueError: an adapter that works through virtual tokens, that is pickled, or that does not fit its base.
    """
    config = PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning:
        raise ValueError(
            f"A {config.peft_type} adapter adds virtual tokens and no layers: its features are not ranked."
        )
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"The adapter has no {WEIGHTS}; pickled adapters are not loaded.")
    base = base_class(config).from_pretrained(
        fetch_base(base_of(config)), **head_size(folder), ignore_mismatched_sizes=True, **options
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        adapted = PeftModel.from_pretrained(base, str(folder))
    if any("missing adapter keys" in str(warning.message) for warning in caught):
        raise ValueError("The adapter lacks weights for its base model; its features would be wrong.")
    return adapted.get_base_model()


def base_of(config: PeftConfig) -> str:
    """The name of the model that an adapter was trained on, at the revision that it says."""
    return pinned(config.base_model_name_or_path, config.revision)


def base_class(config: PeftConfig) -> type:
    """The class the adapter was trained on: by its task, by the class it names, or the bare model."""
    named = (config.auto_mapping or {}).get("base_model_class", "")
    if config.task_type in TASK_CLASSES:
        return getattr(transformers, TASK_CLASSES[config.task_type])
    for ending in ADAPTED_CLASSES:
        if named.endswith(ending):
            return getattr(transformers, f"AutoModel{ending}")
    return transformers.AutoModel


def head_size(folder: Path) -> dict[str, int]:
    """`num_labels` of the head that was saved with the adapter, if one was."""
    with safe_open(folder / WEIGHTS, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118  (a safetensors file is no mapping)
            if name.endswith(HEADS):
                return {"num_labels": weights.get_slice(name).get_shape()[0]}
    return {}
