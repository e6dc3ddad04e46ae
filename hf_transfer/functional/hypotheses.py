"""Small hypotheses on features, for estimates that are a supremum or a minimum over hypotheses.

    h(x) = W_2 relu(W_1 x + b_1) + b_2,   W ~ N(0, 1 / inputs), b = 0 at the start

A search by full-batch gradient steps: it finds less than the supremum.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

WIDTH, STEPS = 64, 200
"""Hidden units of a hypothesis, and steps of fitting one."""


def perceptron(inputs: int, outputs: int, generator: torch.Generator) -> nn.Sequential:
    """A hypothesis with one hidden layer, [N, inputs] -> [N, outputs]; no other randomness is used up."""
    layers = [nn.utils.skip_init(nn.Linear, *sizes) for sizes in ((inputs, WIDTH), (WIDTH, outputs))]
    for layer in layers:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1])


@torch.enable_grad()
def fit(hypothesis: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Take steps down the loss; the hypothesis is frozen afterwards."""
    optimizer = torch.optim.AdamW(hypothesis.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    hypothesis.requires_grad_(False)


def standardised(features: Tensor) -> Tensor:
    """Columns of [N, D] with mean 0 and deviation 1; of both domains together it keeps what tells them apart."""
    return (features - features.mean(dim=0)) / features.std(dim=0).clamp_min(1e-8)
