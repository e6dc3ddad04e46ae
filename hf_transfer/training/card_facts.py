"""What a trainer and its model say of themselves, as the facts of a model card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, Trainer

from hf_transfer.core.objective import SOURCE, TARGET
from hf_transfer.data.checks import column_values
from hf_transfer.data.fingerprint import fingerprint
from hf_transfer.data.text_collator import TextCollator
from hf_transfer.hub import DatasetFact, MethodFact, MetricFact, RunFacts
from hf_transfer.hub.adapter import are_made_up
from hf_transfer.modeling.anatomy import is_backbone, unwrap_peft
from hf_transfer.models.short_names import packaged_name
from hf_transfer.training.converters import conversions_of, converter
from hf_transfer.tuners.difference import DifferenceConfig, changed_parameters

OWN = "hf_transfer"
FLOWFORMER = "hf_transfer.models.flowformer"
HEADS = {
    "ForImageClassification": ("image-classification", "AutoModelForImageClassification"),
    "ForSequenceClassification": ("text-classification", "AutoModelForSequenceClassification"),
    "ForTokenClassification": ("token-classification", "AutoModelForTokenClassification"),
    "ForQuestionAnswering": ("question-answering", "AutoModelForQuestionAnswering"),
    "ForQuestionAnsweringSimple": ("question-answering", "AutoModelForQuestionAnswering"),
    "ForAudioClassification": ("audio-classification", "AutoModelForAudioClassification"),
    "ForVideoClassification": ("video-classification", "AutoModelForVideoClassification"),
    "ForSemanticSegmentation": ("image-segmentation", "AutoModelForSemanticSegmentation"),
    "ForObjectDetection": ("object-detection", "AutoModelForObjectDetection"),
    "ForKeypointDetection": ("keypoint-detection", "AutoModelForKeypointDetection"),
    "ForPoseEstimation": ("keypoint-detection", "AutoModelForPoseEstimation"),
    "ForMaskedImageModeling": ("masked-image-modeling", "AutoModelForMaskedImageModeling"),
    "ViTMAEForPreTraining": ("masked-image-modeling", ""),
    "ForMaskedLM": ("fill-mask", "AutoModelForMaskedLM"),
    "ForCausalLM": ("text-generation", "AutoModelForCausalLM"),
    "LMHeadModel": ("text-generation", "AutoModelForCausalLM"),
    "ForConditionalGeneration": ("text2text-generation", "AutoModelForSeq2SeqLM"),
    "ForTimeSeriesClassification": ("time-series-classification", ""),
    "ForTimeSeriesPretraining": ("masked-time-series-modeling", ""),
    "ForTrajectoryPretraining": ("trajectory-modeling", ""),
    "DecisionFlowformer": ("offline-reinforcement-learning", ""),
}
"""End of a model's class -> its task, and the Auto class that loads it; none where the class itself does."""
ADAPTER_TASKS = {
    "SEQ_CLS": "AutoPeftModelForSequenceClassification",
    "TOKEN_CLS": "AutoPeftModelForTokenClassification",
    "CAUSAL_LM": "AutoPeftModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoPeftModelForSeq2SeqLM",
    "QUESTION_ANS": "AutoPeftModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoPeftModelForFeatureExtraction",
}
MOST_NAMES = 50
"""Classes up to which the lines that load an adapter name each."""
MOST_MODULES = 8
HIDDEN = ("_runtime", "_per_second", "_preparation_time", "epoch")


def card_of(trainer: Trainer, folder: str | Path, **changes: Any) -> RunFacts:
    """Everything a trainer knows of the model that it has, for the card of a folder.

    Args:
        trainer: a TransferTrainer, before or after its training.
        folder: where the model is saved.
        changes: facts that are known better.
    """
    facts = {
        "model_name": Path(folder).resolve().name,
        "model_id": str(folder),
        "metrics": last_metrics(trainer),
        "datasets": dataset_facts(trainer),
        **loading_facts(trainer),
        **training_facts(trainer),
    }
    if not trainer.state.global_step:
        facts["summary"] = "Not trained yet."
    return RunFacts(**{**facts, **{name: value for name, value in changes.items() if value is not None}})


def loading_facts(trainer: Trainer) -> dict[str, Any]:
    """Task, and how the model of a trainer is loaded once it is saved: keywords of `RunFacts`."""
    return loading_facts_of(trainer.adapted_model, trainer.transfer_model.reads_head)


def loading_facts_of(model: PreTrainedModel | PeftModel, reads_head: bool = True) -> dict[str, Any]:
    """Task, and how a saved model is loaded: keywords of `RunFacts`.

    Args:
        model: with its adapter, where it has one.
        reads_head: whether the head of an adapter's base is used.
    """
    base = unwrap_peft(model)
    name = type(base).__name__
    found = next((HEADS[ending] for ending in HEADS if name.endswith(ending)), ("feature-extraction", ""))
    task, auto_class = found
    if task == "text-classification" and base.main_input_name == "input_values":
        task, auto_class = "audio-classification", "AutoModelForAudioClassification"
    if task == "feature-extraction" and base.main_input_name == "pixel_values" and is_backbone(base):
        task = "image-feature-extraction"
    facts: dict[str, Any] = {"task": task, "needs_hf_transfer": registered_part(model)}
    if task == "text2text-generation" and type(base.config) not in AutoModelForSeq2SeqLM._model_mapping:
        task, auto_class = "feature-extraction", ""  # of pictures or speech
    options: dict[str, Any] = {}
    if base.config._attn_implementation == "flow" and not _is_own(base.config):
        options["attn_implementation"] = "flow"
    if isinstance(model, PeftModel):
        options |= adapter_options(model, reads_head)
        told = model.active_peft_config.task_type  # a word where it came from YAML
        auto_class = ADAPTER_TASKS.get(str(getattr(told, "value", told)), "AutoPeftModel")
        facts["loads_with"] = "peft"
        if not has_embeddings(base):
            facts["base_class"], auto_class, options = "AutoModel", "PeftModel", {}
    elif not auto_class:
        auto_class = name
        module = FLOWFORMER if type(base).__module__.startswith(FLOWFORMER) else type(base).__module__
        facts["imports_from"] = "" if hasattr(transformers, name) else module
    return {**facts, "auto_class": auto_class, "load_options": options}


def has_embeddings(base: PreTrainedModel) -> bool:
    """Whether a model says which embeddings it reads by, which PEFT's Auto classes ask for; one with two towers does
    not."""
    try:
        return base.get_input_embeddings() is not None
    except NotImplementedError:
        return False


def _is_own(thing: Any) -> bool:
    return type(thing).__module__.split(".")[0] == OWN


def registered_part(model: PreTrainedModel | PeftModel) -> str:
    """What has to be registered before the saved model can be loaded; empty where nothing of ours has to be."""
    config = unwrap_peft(model).config
    configs = [config, getattr(config, "backbone_config", None)]
    own = [one for one in configs if one is not None and _is_own(one)]
    parts = [f"the architecture {one.model_type}" for one in own[:1]]
    if isinstance(model, PeftModel) and _is_own(model.active_peft_config):
        parts.append(f"the tuner {type(model.active_peft_config).__name__.removesuffix('Config')}")
    if config._attn_implementation == "flow" and not _is_own(config):
        parts.append("the attention function `flow`")
    return " and ".join(parts)


def adapter_options(model: PeftModel, reads_head: bool) -> dict[str, Any]:
    """What `from_pretrained` has to be told of an adapter's base: its head may have other classes."""
    base = unwrap_peft(model)
    options: dict[str, Any] = {"import_allowlist": [OWN]} if _is_own(base) else {}
    if not reads_head:
        return options
    names = base.config.id2label
    if are_made_up(list(names.values())) or len(names) > MOST_NAMES:
        return {**options, "num_labels": base.config.num_labels, "ignore_mismatched_sizes": True}
    numbers = {name: index for index, name in names.items()}
    return {**options, "id2label": dict(names), "label2id": numbers, "ignore_mismatched_sizes": True}


def training_facts(trainer: Trainer) -> dict[str, Any]:
    """What the trainer knows of a run, as keywords of `RunFacts`: methods with papers, settings, base model."""
    methods = [
        MethodFact(type(method).__name__, method.paper, keywords_of(method))
        for method in (*trainer.transfer_model.objectives.values(), *trainer.schedules)
    ]
    methods += [
        MethodFact(name, converter(name).paper, keywords)
        for name, keywords in conversions_of(trainer.adapted_model).items()
    ]
    collator = getattr(trainer.data_collator, "collator", trainer.data_collator)
    if isinstance(collator, TextCollator):
        keywords = {name: value for name, value in keywords_of(collator).items() if name not in ("seed", "vocabulary")}
        methods.append(MethodFact(type(collator).__name__, collator.paper, keywords))
    return {
        "base_model": packaged_name(unwrap_peft(trainer.adapted_model).config._name_or_path or "") or None,
        "methods": methods + adapter_facts(trainer.adapted_model),
        "hyper_parameters": settings_of(trainer),
    }


def settings_of(trainer: Trainer) -> dict[str, Any]:
    """The settings of the training as a whole, what was trained and how long it took."""
    args, model = trainer.args, trainer.adapted_model
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    settings = {
        "learning_rate": args.learning_rate,
        "head_learning_rate_multiplier": args.head_learning_rate_multiplier,
        "lr_scheduler_type": str(args.lr_scheduler_type.value),
        "max_steps": trainer.state.max_steps,
        "train_batch_size": trainer.get_total_train_batch_size(args),
        "weight_decay": args.weight_decay,
        "seed": args.seed,
        **({"source_holdout": args.source_holdout} if args.source_holdout else {}),
        "num_processes": args.world_size,
        "trained_parameters": f"{trained} of {sum(one.numel() for one in model.parameters())}",
    }
    seconds = [entry["train_runtime"] for entry in trainer.state.log_history if "train_runtime" in entry]
    if seconds:
        settings["training_seconds"] = round(seconds[-1], 1)
    if longest := longest_input(trainer.known_rows):
        settings["longest_input_tokens"] = longest
    return settings


def longest_input(rows: Any) -> int | None:
    """Tokens of the longest training text; None without any."""
    if not isinstance(rows, Dataset) or "input_ids" not in rows.column_names:
        return None
    return max(map(len, rows.with_format(None)["input_ids"]), default=None)


def adapter_facts(model: PreTrainedModel | PeftModel) -> list[MethodFact]:
    """The adapter of a PEFT model with its sizes, where it is, and what else is not as PEFT has it by default."""
    if not isinstance(model, PeftModel):
        return []
    config = model.active_peft_config
    keywords: dict[str, Any] = {}
    for one in fields(config):
        value = getattr(config, one.name)
        if one.name in PeftConfig.__dataclass_fields__ or value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number or (value != one.default and isinstance(value, bool | str)):
            keywords[one.name] = value
        elif isinstance(value, set | list | tuple) and value and all(isinstance(part, str | int) for part in value):
            # `all-linear` names each layer by itself; the kinds say as much
            names = {str(part) for part in value}
            kinds = {name.split(".")[-1] for name in names} if len(names) > MOST_MODULES else names
            keywords[one.name] = "+".join(sorted(kinds))
    if isinstance(config, DifferenceConfig):
        keywords["changed"] = str(changed_parameters(model))
    return [MethodFact(type(config).__name__.removesuffix("Config"), getattr(config, "paper", ""), keywords)]


def keywords_of(objective: Any) -> dict[str, Any]:
    """The plain-valued attributes of an objective: its hyper-parameters."""
    return {
        name: value
        for name, value in vars(objective).items()
        if isinstance(value, int | float | str) and not name.startswith("_") and name != "training"
    }


def dataset_facts(trainer: Trainer) -> list[DatasetFact]:
    """The rows that the trainer has, by domain where there are two, and those of its evaluation."""
    facts, rows = [], trainer.train_dataset
    if isinstance(rows, Dataset):
        counts = {"training": len(rows)}
        if trainer.transfer_model.needs & {"domain"} or hasattr(trainer, "validation_dataset"):
            domains = column_values(rows, "domain")
            counts = {
                role: int(np.sum(domains == number))
                for role, number in (("source", SOURCE), ("target, unlabelled", TARGET))
            }
        facts += [_dataset_fact(rows, role, count) for role, count in counts.items()]
    if isinstance(trainer.eval_dataset, Dataset):
        facts.append(_dataset_fact(trainer.eval_dataset, "evaluation", len(trainer.eval_dataset)))
    return facts


def _dataset_fact(rows: Dataset, role: str, count: int) -> DatasetFact:
    remote = [name for name in rows.info.download_checksums or {} if name.startswith("hf://datasets/")]
    hub_id = remote[0].removeprefix("hf://datasets/").split("@")[0] if remote else None
    name = hub_id or rows.info.dataset_name or "rows given in Python"
    return DatasetFact(name, role, count, hub_id=hub_id, note=f"fingerprint {fingerprint(rows)}")


def last_metrics(trainer: Trainer) -> list[MetricFact]:
    """What was measured of the weights as they are now: in the last evaluation, or that of the checkpoint taken."""
    state = trainer.state
    taken = trainer.args.load_best_model_at_end and state.best_global_step
    step = state.best_global_step if taken else state.global_step
    measured: Mapping[str, Any] = {}
    for entry in state.log_history:
        if entry.get("step") == step:
            measured = {**measured, **{name: value for name, value in entry.items() if name.startswith("eval_")}}
    rows = trainer.eval_dataset
    name = (rows.info.dataset_name if isinstance(rows, Dataset) else None) or "rows given in Python"
    return [
        MetricFact(metric.removeprefix("eval_"), value, name, split="evaluation")
        for metric, value in measured.items()
        if isinstance(value, int | float) and math.isfinite(value) and not metric.endswith(HIDDEN)
    ]
