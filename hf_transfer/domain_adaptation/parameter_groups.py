"""The two halves of a classifier between which adversarial methods alternate: the encoder and the last linear head."""

from __future__ import annotations

from torch import nn

from hf_transfer.modeling.anatomy import linear_heads


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters of the last linear head, adapters included.

    Raises:
        ValueError: the model has no linear head.
    """
    return [parameter for head in linear_heads(model) for parameter in head.parameters()]


def encoder_parameters(model: nn.Module) -> list[nn.Parameter]:
    """All other parameters: what makes the features."""
    head = {id(parameter) for parameter in head_parameters(model)}
    return [parameter for parameter in model.parameters() if id(parameter) not in head]
