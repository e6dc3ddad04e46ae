"""TENT: at test time the normalisation layers follow the batches that come, so that predictions become certain.

    for every batch x:   z = model(x),   L = mean_i H(softmax z_i),   (gamma, beta) <- Adam step on L
    H(p) = -sum_c p_c log p_c

gamma and beta are the weights and biases of all normalisation layers, nothing else moves, and batch norms use the
statistics of the batch. The answer to a batch is the z from before its own last step. Units are rows, real tokens or
pixels. No label is read; the order of the batches matters.

Paper: Wang et al., "Tent: Fully Test-Time Adaptation by Entropy Minimization", ICLR 2021,
https://huggingface.co/papers/2006.10726, whose settings for small pictures are the defaults: Adam with a learning rate
of .001, one step a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_transfer.core.converter import converts
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.functional.entropy import prediction_entropy
from hf_transfer.functional.processes import process_count
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.modeling.readouts import choose_readout
from hf_transfer.modeling.surgery import modules_where, reclass


@converts()
def convert(model: nn.Module, *, learning_rate: float = 1e-3, steps: int = 1) -> nn.Module:
    """Let a trained classifier adapt to whatever it predicts from now on, in place.

    Args:
        model: a Hugging Face or PEFT model with a linear head for classes.
        learning_rate: of Adam.
        steps: for every batch.

    Raises:
        ValueError: a keyword out of range, several processes, no normalisation layer with weights, or no classes.
    """
    if learning_rate <= 0 or steps < 1:
        raise ValueError(
            f"`learning_rate` should be positive and `steps` at least 1, got {learning_rate} and {steps}."
        )
    if process_count() > 1:
        raise ValueError("`tent` adapts to the batches in their order: evaluate in one process.")
    base = unwrap_peft(model)
    readout = choose_readout(base)
    is_single = getattr(base.config, "problem_type", None) in (None, SINGLE_LABEL)
    if (readout.num_outputs or 0) < 2 or not is_single:
        raise ValueError(f"`tent` makes predictions of classes certain, and a {type(base).__name__} gives none.")
    norms = modules_where(base, lambda one: "Norm" in type(one).__name__ and not list(one.children()))
    moving = [p for one in norms.values() for p in (one.weight, getattr(one, "bias", None)) if p is not None]
    if not moving:
        raise ValueError(f"`tent`: {type(base).__name__} has no normalisation layer with weights.")
    model.requires_grad_(False)
    for parameter in moving:
        parameter.requires_grad_(True)
    for norm in norms.values():
        if isinstance(norm, _BatchNorm):
            reclass(norm, OfTheBatch)
    optimizer = torch.optim.Adam(moving, lr=learning_rate)
    base.forward = adapting(base.forward, base, optimizer, steps)
    return model


convert.paper = "2006.10726"


class OfTheBatch:
    """The forward of a batch norm by the statistics of the batch, always; mixed into the norm's own class."""

    def forward(self, values: Tensor, *args: Tensor | None) -> Tensor:
        was_training, momentum = self.training, self.momentum
        self.training, self.momentum = True, 0.0  # running statistics stay as they are
        try:
            return super().forward(values, *args)
        finally:
            self.training, self.momentum = was_training, momentum


def adapting(forward: Callable[..., Any], base: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> Callable:
    """The forward of a model that adapts to every batch; it takes what the plain one takes.

    Args:
        forward: the plain one.
        base: the model.
        optimizer: of what moves.
        steps: for every batch.
    """
    readout = choose_readout(base)

    @wraps(forward)
    def adapted(*args: Any, **inputs: Any) -> Any:
        if base.training:
            raise ValueError(
                "`tent` adapts a trained model where it is evaluated: leave it out of the training's converters, and "
                "give it to `hf-transfer evaluate --converters`."
            )
        for _ in range(steps):
            with torch.enable_grad():
                with readout:
                    outputs = forward(*args, **inputs)
                loss = prediction_entropy(readout.read(outputs, inputs).logits).mean()
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
        for name, value in outputs.items():
            if isinstance(value, Tensor):
                outputs[name] = value.detach()
        return outputs

    return adapted
