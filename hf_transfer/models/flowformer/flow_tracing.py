"""Where plain operations are needed, and where no value may be read: what follows a computation from outside.

Graph compilers, the transforms of torch.func and forward-mode derivatives follow no write into a given tensor; the
first two cannot branch on values either.
"""

import torch
from torch.autograd import forward_ad


def is_traced() -> bool:
    """Under a graph compiler, inside a transform of torch.func (vmap, grad, jvp, ...) or a forward-mode level."""
    if torch.compiler.is_compiling():
        return True
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_exported() -> bool:
    """Under torch.export, which takes no graph that holds for some lengths alone; PyTorch before 2.7 cannot tell."""
    return getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()
