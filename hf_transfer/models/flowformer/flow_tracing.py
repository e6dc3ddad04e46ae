"""Where plain operations are needed, and where no value may be read: what follows a computation from outside.

Graph compilers, the transforms of torch.func and forward-mode derivatives follow no write into a given tensor; the
first two cannot branch on values either.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.autograd import forward_ad
from transformers.utils.generic import maybe_autocast


def is_traced() -> bool:
    """Under a graph compiler, inside a transform of torch.func (vmap, grad, jvp, ...) or a forward-mode level."""
    if torch.compiler.is_compiling():
        return True
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def has_values(tensor: Tensor) -> bool:
    """Whether its values may be read, to check them or to branch on them."""
    return not is_traced() and not has_shape_alone(tensor)


def has_shape_alone(tensor: Tensor) -> bool:
    """On the meta device or of a FakeTensorMode, with which sizes, memory and operations are counted."""
    return tensor.is_meta or isinstance(tensor, FakeTensor)


def needs_plain_backward(*gradients: Tensor | None) -> bool:
    """In a backward method: the gradients will be differentiated again, are traced or hold several directions at once.

    `torch.autograd.grad(is_grads_batched=True)`, which also makes vectorised Jacobians, goes by PyTorch's older vmap:
    the state of torch.func says nothing of it, its tensors do.
    """
    if torch.is_grad_enabled() or is_traced():
        return True
    is_batched = torch._C._functorch.is_legacy_batchedtensor
    return any(is_batched(gradient) for gradient in gradients if gradient is not None)


def in_full_precision(backward: Callable) -> Callable:
    """The backward method of a function whose sums autocast would take to half precision, with autocast off.

    The state of autocast in a backward pass is that of whoever calls it.
    """

    @wraps(backward)
    def run(ctx: Any, *gradients: Any) -> Any:
        device = next((one.device.type for one in gradients if one is not None), "cpu")
        with maybe_autocast(device, enabled=False):
            return backward(ctx, *gradients)

    return run


def is_exported() -> bool:
    """Under torch.export, which takes no graph that holds for some lengths alone; PyTorch before 2.7 cannot tell."""
    return getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()
