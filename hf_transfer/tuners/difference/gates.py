"""Hard-concrete gates: numbers in [0, 1] that are exactly 0 or 1 with some probability, and have a gradient.

    z = min(1, max(0, s (zeta - gamma) + gamma)),   s = sigmoid((log u - log(1 - u) + log alpha) / beta)
    P(z > 0) = sigmoid(log alpha - beta log(-gamma / zeta))

Paper: Louizos et al., "Learning Sparse Neural Networks through L0 Regularization", ICLR 2018,
https://huggingface.co/papers/1712.01312. beta = 2/3, gamma = -.1 and zeta = 1.1 as in the paper.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


def hard_concrete(log_alpha: Tensor, is_random: bool) -> Tensor:
    """Gates z of any shape, drawn at random or, without randomness, with s = sigmoid(log alpha)."""
    if is_random:
        uniform = torch.rand_like(log_alpha).clamp(1e-6, 1 - 1e-6)
        soft = torch.sigmoid((torch.logit(uniform) + log_alpha) / BETA)
    else:
        soft = torch.sigmoid(log_alpha)
    return (soft * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def open_probability(log_alpha: Tensor) -> Tensor:
    """P(z > 0) of every gate."""
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))
