"""Half the squared distance of many tensors from where they started, without a graph of each.

    value = 1/2 sum_i v_i (w_i - w0_i)^2,   d value / d w_i = v_i (w_i - w0_i)

One difference a tensor is kept for the backward pass and nothing else, and the kernels run over all tensors at once,
where autograd would go through every tensor several times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def half_squared_distance(
    tensors: Sequence[Tensor], starts: Sequence[Tensor], importances: Sequence[Tensor] | None = None
) -> Tensor:
    """A float32 scalar; only `tensors` get a gradient.

    Args:
        tensors: w, any shapes.
        starts: w0, of the same shapes.
        importances: v, of the same shapes; 1 when left out.
    """
    if not tensors:
        return torch.zeros(())
    return _HalfSquaredDistance.apply(list(starts), None if importances is None else list(importances), *tensors)


class _HalfSquaredDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, starts: list[Tensor], importances: list[Tensor] | None, *tensors: Tensor) -> Tensor:
        gaps = torch._foreach_sub(tensors, starts)
        if importances is None:
            ctx.save_for_backward(*gaps)
            return 0.5 * torch.stack([norm.float() for norm in torch._foreach_norm(gaps)]).square().sum()
        slopes = torch._foreach_mul(gaps, importances)
        ctx.save_for_backward(*slopes)
        parts = [torch.dot(slope.flatten().float(), gap.flatten().float()) for slope, gap in zip(slopes, gaps)]
        return 0.5 * torch.stack(parts).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        slopes = ctx.saved_tensors
        return None, None, *torch._foreach_mul(slopes, [gradient.to(slope.dtype) for slope in slopes])
