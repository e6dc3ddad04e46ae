"""Frozen copies of a model: its start, a source model, a teacher or a momentum encoder.

A copy that moves is an exponential moving average, kept in float32 whatever the weights' type:

    average <- momentum * average + (1 - momentum) * weights

A step of 1 - momentum = .001 is less than bfloat16 or float16 can add to most weights. The copy that runs has the
types of the model; where these are narrower than float32 the average itself stands beside it, under `float32_averages`
of its state, so that a checkpoint holds it.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

FLOAT32 = "float32_averages"

Model = TypeVar("Model", bound=nn.Module)


class FrozenCopy(nn.Module):
    """A copy of a model that takes no gradient and stays in evaluation mode, whatever mode the module around it is in.

    It runs as the model does; `module` is the model itself.

    Args:
        model: is copied as it is now.
        momentum: of the moving average that `update` makes, in [0, 1]; None for a copy that stays as it is or is
            updated with a momentum of its own.
        persistent: checkpoints hold the copy. One that never changes may be written once for all of them.

    Raises:
        ValueError: a copy that moves is not persistent.
    """

    def __init__(self, model: nn.Module, momentum: float | None = None, persistent: bool = True):
        super().__init__()
        if momentum is not None and not persistent:
            raise ValueError("a FrozenCopy with `momentum` changes: `persistent` should be True.")
        self.persistent = persistent
        self.module = frozen_copy(model) if momentum is None else averaged_copy(model)
        self.momentum = momentum

    def train(self, mode: bool = True) -> FrozenCopy:
        """Stays in evaluation mode."""
        return super().train(False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the copy returns; gradients reach the inputs, not the weights."""
        return self.module(*args, **kwargs)

    def update(self, model: nn.Module, momentum: float | None = None) -> None:
        """copy <- momentum * copy + (1 - momentum) * model, as `ema_update`.

        Raises:
            ValueError: no momentum here nor at the start, or one out of its range; the copy is not persistent.
        """
        if not self.persistent:
            raise ValueError("a FrozenCopy that is not `persistent` never changes.")
        momentum = self.momentum if momentum is None else momentum
        if momentum is None:
            raise ValueError("a FrozenCopy without `momentum` stays as it is: give one to it or to `update`.")
        ema_update(self.module, model, momentum)


def frozen_copy(model: Model) -> Model:
    """A copy in evaluation mode whose parameters take no gradient."""
    return copy.deepcopy(model).requires_grad_(False).eval()


def averaged_copy(model: Model) -> Model:
    """A frozen copy for `ema_update` to move: it starts with the float32 averages it will need."""
    average = frozen_copy(model)
    _keep_float32(average, model)
    return average


@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, momentum: float) -> None:
    """average <- momentum * average + (1 - momentum) * model, in place; buffers are copied as they are.

    So are parameters of a quantised model that are no floating-point numbers, and narrow ones that took no gradient
    when the average was begun.

    Args:
        average: a copy of `model`, with the same parameters and buffers in the same order.
        model: the model in training.
        momentum: share of the old average, in [0, 1].

    Raises:
        ValueError: `momentum` is out of its range.
    """
    if momentum > 0 and not hasattr(average, FLOAT32):
        _keep_float32(average, model)
    wide, means = _averages(average), list(average.parameters())
    moving, newest = [], []
    for index, (mean, value) in enumerate(zip(means, model.parameters(), strict=True)):
        kept: Tensor = wide.get(index, mean)
        if kept.is_floating_point() and not _is_narrow(kept):
            moving.append(kept)
            newest.append(value.to(kept.dtype))
        else:
            mean.copy_(value)
    if moving:
        get_ema_multi_avg_fn(momentum)(moving, newest, None)
    for index, float32 in wide.items():
        means[index].copy_(float32)
    own = {id(float32) for float32 in wide.values()}
    copied = [buffer for buffer in average.buffers() if id(buffer) not in own]
    for copied_buffer, buffer in zip(copied, model.buffers(), strict=True):
        copied_buffer.copy_(buffer)


def _averages(average: nn.Module) -> dict[int, Tensor]:
    """The float32 averages, by the index of their parameter."""
    averages = getattr(average, FLOAT32, None)
    return {} if averages is None else {int(name): value for name, value in averages.named_buffers()}


def _is_narrow(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and torch.finfo(tensor.dtype).bits < 32


def _keep_float32(average: nn.Module, model: nn.Module) -> None:
    """Begin the float32 averages of the narrow parameters that train; nothing where there are none."""
    pairs = enumerate(zip(average.parameters(), model.parameters(), strict=True))
    narrow = {index: mean for index, (mean, value) in pairs if value.requires_grad and _is_narrow(mean)}
    if narrow:
        averages = nn.Module()
        for index, mean in narrow.items():
            averages.register_buffer(str(index), mean.detach().float())
        average.add_module(FLOAT32, averages)
