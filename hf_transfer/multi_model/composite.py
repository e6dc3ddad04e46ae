"""A model made of whole Hugging Face models, saved as one folder that holds them all.

The configurations of the members stand in that of the composite, their weights under `members.0`, `members.1` and so
on of its own. transformers knows composites by their `model_type`, so the Auto classes load them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

import transformers
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from hf_transfer.core.task_loss import REGRESSION, SINGLE_LABEL, problem_type_of, task_loss
from hf_transfer.data.text_length import text_positions
from hf_transfer.models.flowformer import FlowformerForTimeSeriesClassification

ENDINGS = ("ForImageClassification", "ForSequenceClassification")
OF_INPUTS = ("modality", "image_size", "num_channels", "vocab_size", "pad_token_id", "type_vocab_size")
NOT_OF_A_MEMBER = ("dtype", "transformers_version", "_name_or_path", "_attn_implementation")


@strict
class CompositeConfig(PreTrainedConfig):
    """Configurations of the members.

    Args:
        members: of each member its configuration as a mapping, with `model_type` and the name of its class under
            `architectures`.
    """

    members: list[dict] | tuple[dict, ...] = field(default_factory=list)


class CompositeModel(PreTrainedModel):
    """What composites share: making the members, handing them the inputs that they read, and the loss.

    Args:
        config: with at least one member.

    Raises:
        ValueError: there is no member.
    """

    config_class = CompositeConfig
    # Not the name of one module inside, so that nobody takes a single member for the backbone.
    base_model_prefix = "members"
    _supports_sdpa = True

    def __init__(self, config: CompositeConfig):
        super().__init__(config)
        if not config.members:
            raise ValueError(f"{type(self).__name__} needs at least one member; make one of models by `of`.")
        self.members = nn.ModuleList(member_of(settings) for settings in config.members)
        self.main_input_name = self.members[0].main_input_name

    def _init_weights(self, module: nn.Module) -> None:
        """Members initialise themselves."""

    def loss_of(self, logits: Tensor, labels: Tensor | None) -> Tensor | None:
        """The task's loss where there are labels, as the problem type says."""
        if labels is None:
            return None
        return task_loss(logits, labels, problem_type_of(self.config, labels))

    def logits_of(self, inputs: dict[str, Tensor]) -> Tensor:
        """Logits [B, C] of the members on inputs by name; each is given those that it names."""
        raise NotImplementedError(f"{type(self).__name__} should define `logits_of(inputs)`.")

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        past_values: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutput:
        """Logits [B, C], and the loss where there are labels."""
        named = {"pixel_values": pixel_values, "input_ids": input_ids, "attention_mask": attention_mask}
        named |= {"token_type_ids": token_type_ids, "past_values": past_values}
        logits = self.logits_of(self.given(named, kwargs))
        return ImageClassifierOutput(loss=self.loss_of(logits, labels), logits=logits)

    @staticmethod
    def given(inputs: Mapping[str, Tensor | None], more: Mapping[str, Any]) -> dict[str, Tensor]:
        """The tensors among the arguments of a forward."""
        return {name: value for name, value in {**inputs, **more}.items() if isinstance(value, Tensor)}


def member_of(settings: Mapping[str, Any]) -> PreTrainedModel:
    """A member with random weights, of its configuration.

    Raises:
        ValueError: it is of a class that has no head for images, texts or series.
    """
    settings = dict(settings)
    saved = (settings.get("architectures") or [""])[0]
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    if saved == FlowformerForTimeSeriesClassification.__name__:  # transformers has no Auto class for series
        return FlowformerForTimeSeriesClassification(config)
    loader = next((getattr(transformers, f"AutoModel{end}") for end in ENDINGS if saved.endswith(end)), None)
    if loader is None:
        raise ValueError(f"a member should be a classifier or a regression of images, texts or series, got {saved}.")
    return loader.from_config(config)


def member_settings(model: PreTrainedModel) -> dict[str, Any]:
    """The configuration of a model, as the composite keeps it."""
    settings = {name: value for name, value in model.config.to_dict().items() if name not in NOT_OF_A_MEMBER}
    return {**settings, "architectures": [type(model).__name__]}


def shared_settings(models: Sequence[PreTrainedModel]) -> dict[str, Any]:
    """The labels and the problem type that all members have.

    Raises:
        ValueError: there is none, or two differ in labels, problem type or modality.
    """
    if not models:
        raise ValueError("a model of several needs at least one member, got none.")
    first = models[0]
    for index, other in enumerate(models[1:], start=1):
        for what, one, two in (
            ("main input", first.main_input_name, other.main_input_name),
            ("number of labels", first.config.num_labels, other.config.num_labels),
            ("labels", first.config.id2label, other.config.id2label),
            ("problem type", first.config.problem_type, other.config.problem_type),
        ):
            if one != two:
                raise ValueError(
                    f"all members should have the same {what}; member 0 ({type(first).__name__}) has {one}, member "
                    f"{index} ({type(other).__name__}) {two}. `load_members` puts labels in one order."
                )
    usual = REGRESSION if first.config.num_labels == 1 else SINGLE_LABEL
    kind = first.config.problem_type or usual
    labels = {"id2label": dict(first.config.id2label), "label2id": dict(first.config.label2id), "problem_type": kind}
    return {**labels, **input_settings(models)}


def input_settings(models: Sequence[PreTrainedModel]) -> dict[str, Any]:
    """What the configurations say of the inputs: those of the first member, and the shortest text of any."""
    configs = [model.config.get_text_config() for model in models]
    settings = {name: getattr(configs[0], name) for name in OF_INPUTS if getattr(configs[0], name, None) is not None}
    lengths = [length for one in configs if (length := text_positions(one)) is not None]
    return {**settings, **({"max_position_embeddings": min(lengths)} if lengths else {})}


def accepted_inputs(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the inputs that the model's forward names."""
    accepted = inspect.signature(model.forward).parameters
    return {name: value for name, value in inputs.items() if name in accepted}
