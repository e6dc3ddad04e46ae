"""The gradient reversal layer: identity forward, minus a coefficient times the gradient backward.

    forward: y = x            backward: dL/dx = -lambda dL/dy

Paper: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016,
https://huggingface.co/papers/1505.07818
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class _Reverse(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(inputs: Tensor, coefficient: float) -> Tensor:
        return inputs.view_as(inputs)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, float], output: Tensor):
        ctx.coefficient = inputs[1]

    @staticmethod
    def backward(ctx, grad: Tensor):
        return -ctx.coefficient * grad, None


def gradient_reversal(inputs: Tensor, coefficient: float = 1.0) -> Tensor:
    """`inputs` of any shape, unchanged; its gradient is multiplied by `-coefficient`."""
    return _Reverse.apply(inputs, coefficient)


def warm_start_coefficient(progress: float, high: float = 1.0, alpha: float = 10.0) -> float:
    """Coefficient of the reversal that grows from 0 to `high`: high * (2 / (1 + exp(-alpha * progress)) - 1).

    The published schedules count steps, alpha_steps * i / i_max with alpha_steps = 1 and i_max = 1000 over 10,000
    steps or so; driven by `progress` in [0, 1] that is alpha = 10, the value of the original paper.
    """
    return high * (2.0 / (1.0 + math.exp(-alpha * progress)) - 1.0)
