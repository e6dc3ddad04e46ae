"""Load or build the model of a run, with its processor and, if asked, a PEFT adapter."""

from __future__ import annotations

import difflib
import logging as python_logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import load_peft_weights
from safetensors import SafetensorError
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import find_adapter_config_file, logging

from hf_transfer.hub import adapter_class_names, adapter_outputs
from hf_transfer.hub.adapter import adapter_reading, are_made_up, find_base, named_base
from hf_transfer.modeling.adapters import head_size, is_adapter, lost_encoder
from hf_transfer.modeling.anatomy import AUXILIARY, backbone_of, linear_heads, unwrap_peft
from hf_transfer.modeling.detection_readouts import detection_layers
from hf_transfer.modeling.frozen_norms import untrained_frozen_norms
from hf_transfer.modeling.head_order import order_head
from hf_transfer.modeling.label_forms import DETECTION_HEADS
from hf_transfer.modeling.named_backbones import BACKBONE, fields_of_head, load_backbone, named_backbone
from hf_transfer.modeling.two_towers import (
    DUAL_ENCODER,
    TOWERS,
    has_only_towers,
    image_classifier,
    load_tower,
    named_parts,
    settle_width,
    tower_config,
)
from hf_transfer.models.group_normed import Standardised
from hf_transfer.models.short_names import model_folder
from hf_transfer.tasks import task_named
from hf_transfer.tasks.arguments import ModelArguments
from hf_transfer.training.converters import check_adapter, convert_model

logger = logging.get_logger(__name__)

DEFAULT_TASK = "image-classification"
"""Of a model that is loaded by itself; a run asks model and data, see `hf_transfer.runs.task`."""
SHOWN_WEIGHTS = 4
REPORTERS = ("modeling_utils", "modeling_layers", "utils.loading_report")


class LacksWeights(ValueError):
    """A folder without some of the weights that the task needs, such as a backbone without its head."""


def load_model(
    arguments: ModelArguments,
    class_names: list[str] | None = None,
    allow_new_weights: bool = True,
    outputs: int | None = None,
    problem_type: str | None = None,
) -> Any:
    """The model with a head for `class_names`, new where the stored head has another number of classes.

    Args:
        arguments: where to start from.
        class_names: names of the classes; None for tasks without classes, or to keep the stored head.
        allow_new_weights: False refuses a folder that lacks weights, such as a backbone without its head.
        outputs: in place of classes, how many numbers a label is that has no names.
        problem_type: one of `hf_transfer.core.task_loss.PROBLEM_TYPES`; regression where there are `outputs`.

    Raises:
        ValueError: the folder or Hub id is not a model, lacks weights, cannot be converted, or the adapter's type is
            unknown.
    """
    task = arguments.task or DEFAULT_TASK
    loader = task_named(task).model_class()
    if arguments.peft is not None:
        check_adapter(arguments.converters, arguments.model)
    labels: dict[str, Any] = {"num_labels": outputs, "problem_type": problem_type or "regression"} if outputs else {}
    if class_names:
        labels = {"id2label": dict(enumerate(class_names)), "label2id": {n: i for i, n in enumerate(class_names)}}
        # A checkpoint of another problem type would keep its loss.
        labels |= {"problem_type": problem_type} if problem_type else {}
    if arguments.architecture is not None:
        model = from_architecture(loader, {**arguments.architecture, **labels}, task)
    else:
        adapter = local_adapter(arguments.model, arguments.revision)
        if adapter is not None and allow_new_weights:
            check_adapter(arguments.converters, arguments.model)
        try:
            model, report = from_folder(arguments, adapter, loader, labels, to_train=allow_new_weights)
        except (OSError, ValueError, SafetensorError, StrictDataclassError) as error:
            reason = headless_kind(error) or error
            base = "" if adapter is None else f", an adapter of `{named_base(adapter)}`,"
            raise ValueError(f"cannot load `{arguments.model}`{base} for {task}: {reason}") from error
        if adapter is not None:
            unwrap_peft(model).config.update(adapter_reading(adapter))
        if report["missing_keys"] and not allow_new_weights:
            raise LacksWeights(
                f"`{arguments.model}` lacks weights for {task} ({sorted(report['missing_keys'])[:3]}): adapt it first."
            )
        tell_new_weights(arguments.model, report)
        if class_names and not (report["missing_keys"] or report.get("mismatched_keys")):
            order_head(model, stored_class_names(arguments, adapter), class_names, arguments.model)
    model = convert_model(model, arguments.converters)
    if arguments.peft is not None:
        model = with_adapter(model, arguments.peft, arguments.revision)
    return in_channels_last(model) if arguments.channels_last else model


def in_channels_last(model: nn.Module) -> nn.Module:
    """The model with its four-dimensional weights in the layout torch.channels_last.

    Raises:
        ValueError: it has no 2-d convolution that would be any faster by it.
    """
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        raise ValueError(
            f"`channels_last` is a layout of 2-d convolutions, and {type(model).__name__} has none: leave it out."
        )
    return model.to(memory_format=torch.channels_last)


def from_folder(
    arguments: ModelArguments, adapter: Path | None, loader: Any, labels: Mapping[str, Any], to_train: bool = False
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A saved model, and what `from_pretrained` reports of it.

    Args:
        arguments: which.
        adapter: its folder, where it is an adapter.
        loader: the Auto class.
        labels: fields of the configuration that say what the head predicts; those that it was saved with when empty.
        to_train: rather than to measure.

    Raises:
        ValueError: as `from_pretrained` or `peft_model`; or an adapter is asked for of another one, or of the image
            tower of a model with two.
    """
    if adapter is not None and arguments.peft is not None:
        raise ValueError(
            "it is an adapter, and the new one that `peft` asks for would be saved without it: leave `peft` out to "
            f"train the saved one further, or merge it first: hf-transfer export {arguments.model} --output-dir NEW."
        )
    if adapter is None and has_only_towers(arguments.model, loader, **arguments.stored):
        if arguments.peft is not None:
            raise ValueError(
                "its image tower alone gets the head, and a `peft` adapter would name the whole model as its base: "
                "adapt without `peft` first, or by the task prompted-image-classification."
            )
        return image_classifier(arguments.model, loader, labels, **arguments.stored)
    if adapter is not None:
        return peft_model(arguments, adapter, loader, labels or adapter_labels(adapter), to_train)
    with without_loading_report():
        return loader.from_pretrained(
            arguments.model, ignore_mismatched_sizes=True, output_loading_info=True, **arguments.stored, **labels
        )


def peft_model(
    arguments: ModelArguments, adapter: Path, loader: Any, labels: Mapping[str, Any], to_train: bool
) -> tuple[peft.PeftModel, dict[str, Any]]:
    """An adapter on its base model, and what its folder lacks or has of another size.

    transformers' own loading of adapters freezes their layers, refuses virtual tokens and layers that share weights,
    and does not find DoRA's magnitudes and AdaLoRA's ranks.

    Args:
        arguments, adapter, loader, labels, to_train: as of `from_folder`.

    Raises:
        ValueError: as `from_pretrained`; or its training cannot go on.
    """
    config = peft.PeftConfig.from_pretrained(str(adapter))
    is_final = lost_encoder(config)
    if to_train and is_final:
        raise ValueError(
            f"{config.peft_type.value} keeps what its encoder gave and not the encoder, so that its training cannot "
            "go on: start from its base model."
        )
    options = {"ignore_mismatched_sizes": True, **arguments.stored, "revision": base_revision(adapter), **labels}
    with without_loading_report():
        base, report = loader.from_pretrained(find_base(adapter), output_loading_info=True, **options)
    config.inference_mode = is_final
    model = peft.get_peft_model(base, config)
    stored = load_peft_weights(str(adapter), device="cpu")
    read = {"is_trainable": to_train, "ignore_mismatched_sizes": True}
    missing = set(model.load_adapter(str(adapter), "default", **read).missing_keys)
    weights = dict(model.named_parameters(remove_duplicate=False))
    named = {name.replace(".modules_to_save.default", ""): name for name in weights}
    other = {named[name] for name, one in stored.items() if name in named and weights[named[name]].shape != one.shape}
    # what layers share stands in the folder once
    found = {id(weight) for name, weight in weights.items() if name not in missing}
    missing = {name for name in missing - other if id(weights.get(name)) not in found}
    missing |= {name for name in report["missing_keys"] if not any(one.endswith(f".{name}") for one in stored)}
    return model, {"missing_keys": missing, "mismatched_keys": other}


def stored_class_names(arguments: ModelArguments, adapter: Path | None) -> list[str]:
    """The names of the classes that a head was saved with; none where they were made up."""
    if adapter is not None:
        return adapter_class_names(adapter) or []
    config = AutoConfig.from_pretrained(arguments.model, **arguments.stored)
    names = [config.id2label[place] for place in sorted(config.id2label)]
    return [] if are_made_up(names) else names


def local_adapter(name: str, revision: str | None = None) -> Path | None:
    """The folder of an adapter, pulled where it is on the Hub, at a revision; None for a whole model."""
    if Path(name).is_dir():
        return Path(name) if is_adapter(Path(name)) else None
    try:
        config = find_adapter_config_file(name, revision=revision)
    except (OSError, ValueError):  # what is wrong with the name is said where the model is loaded
        return None
    if config is None or (Path(config).parent / "config.json").exists():
        return None
    return Path(snapshot_download(name, revision=revision, allow_patterns=["adapter_*", "config.json"]))


def base_revision(folder: Path) -> str:
    """The revision of its base that an adapter was trained on."""
    return peft.PeftConfig.from_pretrained(str(folder)).revision or "main"


def adapter_labels(folder: Path) -> dict[str, Any]:
    """What an adapter's head tells: the names of its classes where it was saved with them, otherwise how many, and
    whether these are classes."""
    told = adapter_outputs(folder)
    told = {name: told[name] for name in ("id2label", "label2id", "problem_type") if name in told}
    return told if "id2label" in told else {**head_size(folder), **told}


@contextmanager
def without_loading_report() -> Iterator[None]:
    """transformers prints a table of all weights that it did not find or use; `tell_new_weights` says what matters."""
    reporters = [python_logging.getLogger(f"transformers.{name}") for name in REPORTERS]
    for reporter in reporters:
        reporter.addFilter(is_no_report)
    try:
        yield
    finally:
        for reporter in reporters:
            reporter.removeFilter(is_no_report)


def is_no_report(record: python_logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def tell_new_weights(name: str, report: Mapping[str, Any]) -> None:
    """One line about the weights that start at random, because the folder has none of them or of another size."""
    other_size = {entry[0] if isinstance(entry, tuple) else entry for entry in report.get("mismatched_keys") or ()}
    new = sorted({*report["missing_keys"], *other_size})
    if new:
        shown = ", ".join(new[:SHOWN_WEIGHTS]) + (f" and {len(new) - SHOWN_WEIGHTS} more" * (len(new) > SHOWN_WEIGHTS))
        logger.warning(f"{name} has no fitting weights for {shown}: they start at random.")


def from_architecture(loader: Any, settings: dict[str, Any], task: str) -> PreTrainedModel:
    """A model with random weights.

    Args:
        loader: the Auto class.
        settings: `model_type` and fields of its configuration class; a part that is a name has that model's weights.
        task: for the message.

    Raises:
        ValueError: as `new_config`; or a model of these sizes cannot be made, or has no head for the task.
    """
    named = named_parts(settings)
    config = new_config(settings)
    try:
        # transformers has no public name for it outside its Auto classes
        make = loader._from_config if issubclass(loader, PreTrainedModel) else loader.from_config
        model = make(config)
        for part, name in named.items():
            with without_loading_report():
                is_backbone = part == BACKBONE
                report = load_backbone(model, name) if is_backbone else load_tower(model, part, name)
            tell_new_weights(name, report)
            if is_backbone:
                model.config._name_or_path = name  # what the card says it comes from
        tell_frozen_norms(model)
        return model
    except (ValueError, TypeError, ArithmeticError, RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(f"`architecture` cannot be made for {task}: {headless_kind(error) or error}") from error


def tell_frozen_norms(model: PreTrainedModel) -> None:
    """A warning where batch norms of random weights are frozen, which `untrained_frozen_norms` finds."""
    if (count := untrained_frozen_norms(model)) > 0:
        logger.warning(
            f"{count} batch norms of the {model.config.model_type}'s backbone, whose weights are random, are frozen "
            "and normalise nothing: training will be slow. Give `backbone_config` the name of a model with weights, "
            "take a backbone without batch norms, or a detector that can train them (rt_detr)."
        )


def headless_kind(error: Exception) -> str | None:
    """Instead of the Auto class's list of every configuration it knows: that the model's kind has no such head."""
    found = re.search(r"Unrecognized configuration class .*?(\w+)Config'>", str(error))
    return f"{found[1]} models have no head for it; choose another model or another `task`." if found else None


def new_config(settings: dict[str, Any]) -> PreTrainedConfig:
    """The configuration of an architecture.

    Args:
        settings: `model_type` and fields of its configuration class.

    Raises:
        ValueError: no such `model_type`, or a field that is unknown or has a wrong value.
    """
    kind = settings.pop("model_type", None)
    attention = settings.pop("attn_implementation", None)
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        close = difflib.get_close_matches(str(kind), list(CONFIG_MAPPING), n=5)
        raise ValueError(f"`architecture` should name a `model_type` of transformers, got {kind!r}; close: {close}.")
    # A configuration keeps whatever it is given, so that a misspelt size would be passed over in silence.
    plain = AutoConfig.for_model(kind)
    # that of a convolutional net may say nothing of the size of its images, which are read at one all the same
    known = {"image_size"} if hasattr(plain, "num_channels") or hasattr(plain, "backbone_config") else set()
    # T5's has no default for the token that the decoder starts with, and cannot be trained without one
    known |= {"decoder_start_token_id", "bos_token_id"} if plain.is_encoder_decoder else set()
    unknown = sorted(name for name in map(str, settings) if not hasattr(plain, name) and name not in known)
    if unknown:
        raise ValueError(f"`architecture`: {type(plain).__name__} has no {unknown}.")
    named_parts(settings)  # refuses what is neither a name nor fields
    parts = set(TOWERS) & set(settings)
    settings |= {part: new_tower(settings[part], getattr(plain, part), part, kind) for part in parts}
    if isinstance(settings.get(BACKBONE), str):
        backbone = named_backbone(settings[BACKBONE], plain)
        fields = fields_of_head(settings[BACKBONE], backbone, plain)
        settings = {**fields, **settings, BACKBONE: backbone.to_dict()}
    try:
        config = AutoConfig.for_model(kind, **settings)
    except (StrictDataclassError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"`architecture`: {error}") from error
    check_patches(config)
    if attention is not None:
        config._attn_implementation = attention
        if kind == "flowformer":
            # as the model itself does on save: weights trained with one attention are wrong under another
            config.trained_attention = "flow" if attention == "flow" else "sdpa"
    return config


def check_patches(config: PreTrainedConfig) -> None:
    """Raises ValueError where patches do not divide images: their right and lower edge would not be seen."""
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if isinstance(size, int) and isinstance(patch, int) and size % patch:
        raise ValueError(
            f"`architecture`: `image_size` should be a multiple of `patch_size`, got {size} and {patch}: "
            f"{size // patch * patch} and {(size // patch + 1) * patch} are."
        )


def new_tower(given: Any, plain: PreTrainedConfig, part: str, kind: str) -> dict[str, Any]:
    """The configuration of a tower of an architecture with two.

    Args:
        given: its fields, or the name of a model.
        plain: as it is when nothing is given.
        part: `vision_config` or `text_config`.
        kind: `model_type` of the whole.

    Raises:
        ValueError: as `new_config`; or the tower does not fit.
    """
    if isinstance(given, str):
        config = tower_config(model_folder(given), part)
    else:
        config = new_config({"model_type": plain.model_type, **given})
    if kind == DUAL_ENCODER:
        settle_width(config, part)
    return config.to_dict()


def with_adapter(model: PreTrainedModel, settings: dict[str, Any], revision: str | None = None) -> peft.PeftModel:
    """The model under a new PEFT adapter; its head is trained in full and saved with the adapter.

    Args:
        model: a Hugging Face model.
        settings: keywords of the adapter's PEFT config, `peft_type` among them.
        revision: of the model on the Hub, which the saved adapter names.

    Raises:
        ValueError: unknown or missing `peft_type`, or a wrong keyword.
    """
    try:
        config = peft.get_peft_config(with_convolutions(model, settings))
    except (KeyError, TypeError) as error:
        kinds = sorted(str(getattr(kind, "value", kind)) for kind in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING)
        raise ValueError(f"`peft` should name a `peft_type` of {kinds} and its keywords: {error!r}") from error
    if config.peft_type == peft.PeftType.MULTITASK_PROMPT_TUNING:
        raise ValueError(
            "`peft`: MULTITASK_PROMPT_TUNING reads the number of a task with every row: take PROMPT_TUNING."
        )
    if hasattr(config, "modules_to_save") and config.modules_to_save is None:
        config.modules_to_save = head_names(model) or None
    config.revision = revision or config.revision
    try:
        adapted = peft.get_peft_model(model, config)
        check_standardised(adapted)
        return adapted
    except (AttributeError, TypeError) as error:  # PEFT looks at no types
        raise ValueError(f"`peft`: a keyword of {type(config).__name__} has a wrong value: {error}") from error


def check_standardised(adapted: peft.PeftModel) -> None:
    """Raises ValueError for an adapter of convolutions that standardise their weights, of which its own would be no
    part."""
    layers = [module for module in adapted.modules() if isinstance(module, BaseTunerLayer)]
    if any(isinstance(module.get_base_layer(), Standardised) for module in layers):
        raise ValueError(
            "the convolutions of a net with group norms standardise their weights, to which an adapter cannot add: "
            "name its linear layers or norms as `target_modules`, or train it without `peft`."
        )


def with_convolutions(model: PreTrainedModel, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of an adapter, in which `all-linear` names the convolutions of a model that has nothing linear.

    Raises:
        ValueError: it has no convolution either.
    """
    if str(settings.get("target_modules")).lower() != "all-linear":
        return dict(settings)
    heads = tuple(f"{name}." for name in head_names(model))
    inside = {name: module for name, module in model.named_modules() if not f"{name}.".startswith(heads)}
    if any(isinstance(module, nn.Linear | Conv1D) for module in inside.values()):
        return dict(settings)
    # a rank cannot be shared out among the groups of a depthwise one
    names = [name for name, module in inside.items() if isinstance(module, nn.Conv2d) and module.groups == 1]
    kind = type(model).__name__
    if not names:
        raise ValueError(
            f"`peft`: `target_modules: all-linear` finds nothing in a {kind}, which has neither linear layers nor "
            "convolutions outside its head: name its layers."
        )
    logger.warning(
        f"`target_modules: all-linear`: a {kind} has no linear layer outside its head; its {len(names)} convolutions "
        "are adapted."
    )
    return {**settings, "target_modules": names}


def head_names(model: PreTrainedModel) -> list[str]:
    """Names of the modules with weights outside the backbone, or of a detector's heads; none without classes.

    Beside the classifier these are layers before it that a new head begins with at random, such as `pre_classifier`.
    """
    if type(model).__name__.endswith(DETECTION_HEADS):
        return detection_layers(model)
    try:
        heads = set(linear_heads(model))
    except ValueError:
        return []
    backbone = backbone_of(model)
    found = []
    for name, child in model.named_children():
        parts = set(child.modules())
        has_weights = next(child.parameters(), None) is not None
        if heads & parts or (has_weights and backbone not in parts and name != AUXILIARY):
            found.append(name)
    return found


def load_processor(arguments: ModelArguments, config: PreTrainedConfig) -> Any:
    """What the model was saved with to read raw rows, as its task says, or None."""
    return task_named(arguments.task or DEFAULT_TASK).load_processor(arguments, config)
