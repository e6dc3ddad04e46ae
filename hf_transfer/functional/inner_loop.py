"""The inner loop of meta-learning: steps of gradient descent on a model whose own weights stay as they are.

    theta_0 = theta,   theta_{k+1} = theta_k - alpha dL(theta_k)

What comes back are tensors, so that an outer loss of the adapted weights has a gradient by the starting ones: through
the inner gradients (second order), or past them (first order).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

Weights = dict[str, Tensor]
ONCE_DIFFERENTIABLE = ("flash_attention", "flex_attention", "paged")
"""Starts of the names of attentions that have no second derivative and no plain form to fall back on."""


def trainable(model: nn.Module) -> Weights:
    """The parameters that train, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def call(model: nn.Module, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
    """The model's logits in float32 under these weights, by name, and its own for the rest."""
    return functional_call(model, dict(weights), kwargs=dict(inputs)).logits.float()


def adapted(
    loss_of: Callable[[Weights], Tensor], weights: Weights, steps: int, learning_rate: float, second_order: bool
) -> Weights:
    """The weights after `steps` steps of gradient descent; those that the loss does not reach stay.

    Args:
        loss_of: the inner loss of weights by name.
        weights: where to start.
        steps: how many.
        learning_rate: alpha.
        second_order: keep the graph of the inner gradients.
    """
    for _ in range(steps):
        weights = step_down(loss_of(weights), weights, learning_rate, second_order)
    return weights


def step_down(loss: Tensor, weights: Weights, learning_rate: float, second_order: bool) -> Weights:
    """The weights after one step down the gradient of the loss; those that it does not reach stay."""
    gradients = torch.autograd.grad(
        loss, list(weights.values()), create_graph=second_order, retain_graph=True, allow_unused=True
    )
    return {
        name: value if gradient is None else value - learning_rate * gradient
        for (name, value), gradient in zip(weights.items(), gradients, strict=True)
    }


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Within the block PyTorch's own attention runs in its plain form, which alone has a second derivative."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def check_second_order(model: nn.Module) -> None:
    """Raises ValueError where the model's attention has no second derivative."""
    name = getattr(getattr(model, "config", None), "_attn_implementation", None) or ""
    if name.startswith(ONCE_DIFFERENTIABLE):
        raise ValueError(
            f"the attention `{name}` has no second derivative: load the model with attn_implementation "
            '"sdpa" or "eager", or give `first_order: true`.'
        )
