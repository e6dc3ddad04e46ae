"""Any convolutional net of transformers with group norms and standardised weights in place of batch norms.

    y = gamma (x - mean_g) / sqrt(var_g + eps) + beta       a row's mean and variance of g, a group of channels
    What = (W - mean(W)) / sqrt(var(W) + weight_eps)        over the inputs and the kernel of every filter

Paper: Wu and He, "Group Normalization", ECCV 2018, https://huggingface.co/papers/1803.08494; Qiao et al.,
"Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", https://huggingface.co/papers/1903.10520.

Such a net has tensors of the plain one's names, so that the plain class could read its folder and give other outputs.
Its configuration therefore says another `model_type`, `group_normed`: the Auto classes make the right net where
`hf_transfer` is imported, and refuse the folder where it is not. Configuration and model are classes derived from the
plain ones, made when they are first needed; every head that the Auto classes know of the plain net is there.
"""

from __future__ import annotations

import types
from functools import cache
from math import prod
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

MODEL_TYPE = "group_normed"
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
OF_THE_NORMS = {"plain_model_type": None, "norm_groups": 32, "weight_eps": 1e-10}
"""What the configuration holds beside the plain one's fields, with its defaults."""


def standardised(weight: Tensor, eps: float) -> Tensor:
    """Every filter with mean 0 and variance 1, in float32.

    Args:
        weight: [O, ...].
        eps: is added to the biased variance.
    """
    flat = weight.float().flatten(start_dim=1)
    variance, mean = torch.var_mean(flat, dim=1, correction=0, keepdim=True)
    return ((flat - mean) * (variance + eps).rsqrt()).reshape_as(weight)


def largest_divisor(channels: int, most: int) -> int:
    """The largest number of equal groups of the channels, at most `most`."""
    return next(groups for groups in range(min(channels, most), 0, -1) if channels % groups == 0)


class Standardised:
    """The forward of a convolution with standardised weights; mixed into the convolution's own class."""

    weight_eps: float

    def _conv_forward(self, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(states, standardised(weight, self.weight_eps).to(weight.dtype), bias)  # type: ignore[misc]


@cache
def standardised_class(plain: type[nn.Module]) -> type[nn.Module]:
    return type(f"Standardised{plain.__name__}", (Standardised, plain), {})


def is_standardised(module: nn.Module) -> bool:
    """Whether a convolution is one before a norm, which by custom has no bias, with more than one weight a filter."""
    is_plain = isinstance(module, CONVOLUTIONS) and type(module).forward in [one.forward for one in CONVOLUTIONS]
    return is_plain and module.bias is None and prod(module.weight.shape[1:]) > 1


def group_norm_of(norm: nn.Module, groups: int) -> nn.GroupNorm:
    """A group norm with the weight and bias of a batch norm, as these tensors are."""
    with torch.device("meta"):
        made = nn.GroupNorm(largest_divisor(norm.num_features, groups), norm.num_features, affine=norm.affine)
    if norm.affine:
        made.weight, made.bias = norm.weight, norm.bias
    return made.train(norm.training)


def change_norms(model: nn.Module, groups: int, weight_eps: float) -> None:
    """Group norms for batch norms and standardised convolutions, in place; parameters and their names stay.

    Raises:
        ValueError: there is no batch norm, or one of a class of its own.
    """
    norms = {name: one for name, one in model.named_modules() if isinstance(one, _BatchNorm)}
    if not norms:
        raise ValueError(f"{type(model).__name__} has no batch norm that a group norm could replace.")
    for name, norm in norms.items():
        if type(norm) not in BATCH_NORMS:
            raise ValueError(
                f"`{name}` of {type(model).__name__} is a {type(norm).__name__}, which does more than batch "
                "normalisation: a group norm cannot replace it. Choose a net with plain batch norms."
            )
    for name, norm in norms.items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, group_norm_of(norm, groups))
    for module in model.modules():
        if is_standardised(module):
            module.__class__ = standardised_class(type(module))
            module.weight_eps = weight_eps


class GroupNormedConfig(PreTrainedConfig):
    """What the Auto classes know by the `model_type`; what it makes is the derived configuration of the plain net.

    Args:
        plain_model_type: `model_type` of the plain net.
        settings: of the plain net, and `norm_groups` and `weight_eps`.
    """

    model_type = MODEL_TYPE

    def __new__(cls, plain_model_type: str = "resnet", **settings: Any) -> Any:
        plain = type(AutoConfig.for_model(plain_model_type))
        return derived_config(plain)(plain_model_type=plain_model_type, **settings)


@cache
def derived_config(plain: type[PreTrainedConfig]) -> type[PreTrainedConfig]:
    """The configuration class of the group-normed net, registered with every Auto class that knows the plain one."""
    fields = {"model_type": MODEL_TYPE, **OF_THE_NORMS, "plain_model_type": plain.model_type}
    derived = type(f"GroupNormed{plain.__name__}", (plain,), fields)
    for auto_class, model_class in heads_of(plain):
        auto_class.register(derived, derived_model(model_class, derived), exist_ok=True)
    return derived


def heads_of(plain: type[PreTrainedConfig]) -> list[tuple[Any, type[PreTrainedModel]]]:
    """Every Auto class that makes a model of this configuration, and that model's class."""
    auto_classes = [one for one in vars(modeling_auto).values() if isinstance(one, type)]
    mappings = [(one, getattr(one, "_model_mapping", None)) for one in auto_classes]
    # whether a mapping is empty is not asked: it would import every model of transformers
    found = [(one, mapping[plain]) for one, mapping in mappings if mapping is not None and plain in mapping]
    return [(one, model_class) for one, model_class in found if isinstance(model_class, type)]


@cache
def derived_model(plain: type[PreTrainedModel], config_class: type[PreTrainedConfig]) -> type[PreTrainedModel]:
    """The class of a group-normed net: it makes the plain one and changes its norms."""

    def fill(namespace: dict[str, Any]) -> None:
        def __init__(self, config, *args, **kwargs):
            plain.__init__(self, config, *args, **kwargs)
            change_norms(self, config.norm_groups, config.weight_eps)

        namespace |= {"__init__": __init__, "config_class": config_class, "__module__": __name__}

    return types.new_class(f"GroupNormed{plain.__name__}", (plain,), exec_body=fill)


def __getattr__(name: str) -> Any:
    """The class of a group-normed net by its name, by which PEFT finds an adapter's base."""
    plain = getattr(transformers, name.removeprefix("GroupNormed"), None) if name.startswith("GroupNormed") else None
    if not isinstance(plain, type) or not issubclass(plain, PreTrainedModel):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return derived_model(plain, derived_config(plain.config_class))


def group_normed(model: PreTrainedModel, groups: int, weight_eps: float) -> None:
    """Make a plain net a group-normed one in place, with its configuration.

    Raises:
        ValueError: as `change_norms`; or the Auto classes could not load its folder again.
    """
    plain = type(model.config)
    if getattr(plain, "model_type", None) == MODEL_TYPE:
        raise ValueError(f"this {type(model).__name__} has group norms already.")
    if type(model) not in [model_class for _, model_class in heads_of(plain)]:
        raise ValueError(
            f"no Auto class knows {type(model).__name__}, so that its folder with group norms could not be loaded "
            "again: load the model by an Auto class, such as AutoModelForImageClassification."
        )
    change_norms(model, groups, weight_eps)
    config_class = derived_config(plain)
    model.__class__ = derived_model(type(model), config_class)
    model.config.__class__ = config_class
    model.config.plain_model_type, model.config.norm_groups = plain.model_type, groups
    model.config.weight_eps = weight_eps
