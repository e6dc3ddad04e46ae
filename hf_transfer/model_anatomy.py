"""Backbone and head of any Hugging Face model, found from the model itself.

The backbone is the submodule that `base_model_prefix` names. The head is everything outside it; its last `nn.Linear`
with `num_labels` outputs is where features end and logits begin. With PEFT both are looked up under the adapters.
"""

from __future__ import annotations

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel


def unwrap_peft(model: nn.Module) -> PreTrainedModel:
    """The Hugging Face model under the adapters, or the model itself.

    Raises:
        TypeError: the model is neither a `PreTrainedModel` nor a `PeftModel`.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(base, PreTrainedModel):
        raise TypeError(
            f"`model` should be a Hugging Face PreTrainedModel or a PeftModel, got {type(model).__name__}: load it with "
            "AutoModelForSequenceClassification, AutoModelForImageClassification or another Auto class."
        )
    return base


def backbone_of(model: nn.Module) -> nn.Module:
    """The backbone module of a model with a head.

    Raises:
        ValueError: the model has no submodule of the name `base_model_prefix`, so it is a backbone without a head.
    """
    base = unwrap_peft(model)
    backbone = getattr(base, base.base_model_prefix, None) if base.base_model_prefix else None
    if not isinstance(backbone, nn.Module):
        raise ValueError(
            f"{type(base).__name__} has no head: it is a backbone alone. Load the same weights with a head, "
            "for example AutoModelForImageClassification or AutoModelForSequenceClassification."
        )
    return backbone


def linear_heads(model: nn.Module) -> list[nn.Linear]:
    """The `nn.Linear` layers outside the backbone that have `config.num_labels` outputs, in module order.

    Raises:
        ValueError: there is none.
    """
    base = unwrap_peft(model)
    inside = {id(module) for module in backbone_of(model).modules()}
    num_labels = base.config.num_labels
    heads = [
        module
        for module in base.modules()
        if isinstance(module, nn.Linear) and id(module) not in inside and module.out_features == num_labels
    ]
    if not heads:
        raise ValueError(
            f"{type(base).__name__} has no linear head with num_labels={num_labels} outputs. Transfer methods read the input "
            "of the last linear layer: use a model for classification or regression, with `num_labels` set to the "
            "number of classes of the dataset."
        )
    return heads


def feature_width(model: nn.Module) -> int:
    """D, the width of the input of the last linear head."""
    return linear_heads(model)[-1].in_features


def backbone_parameter_names(model: nn.Module) -> list[str]:
    """Names, as in `model.named_parameters()`, of the trainable parameters of the backbone."""
    inside = {id(parameter) for parameter in backbone_of(model).parameters()}
    return [name for name, p in model.named_parameters() if p.requires_grad and id(p) in inside]


def head_parameter_names(model: nn.Module) -> list[str]:
    """Names, as in `model.named_parameters()`, of the trainable parameters outside the backbone."""
    inside = {id(parameter) for parameter in backbone_of(model).parameters()}
    return [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in inside]


class HeadInput:
    """Records the input of the last linear head of one forward pass, whichever module wraps that head.

    All candidate heads are watched and the one that ran last counts, so that PEFT's copies of a head, of which only the
    active one runs, need no special case.

    Args:
        model: a Hugging Face model or PEFT model with a linear head.

    Raises:
        ValueError: the model has no linear head.
    """

    def __init__(self, model: nn.Module):
        self._seen: tuple[Tensor, Tensor] | None = None
        self._handles = [head.register_forward_hook(self._remember) for head in linear_heads(model)]

    def _remember(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._seen = (inputs[0], output)

    def take(self, logits: Tensor) -> Tensor:
        """Features [B, D] of the forward pass that gave `logits` [B, C]; forgets them afterwards.

        A decoder with a score head applies it to every token and then picks one: the token whose head output equals
        the logits is the one whose input counts.
        """
        if self._seen is None:
            raise RuntimeError("the model's linear head did not run in the last forward pass.")
        features, output = self._seen
        self._seen = None
        if output.ndim == 2:
            return features
        with torch.no_grad():
            gap = (output - logits.to(output.dtype).unsqueeze(1)).abs().sum(dim=-1)  # [B, T]
            token = gap.argmin(dim=1)
        return features[torch.arange(len(features), device=features.device), token]

    def remove(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()
