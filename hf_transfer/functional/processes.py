"""What several processes hold of one batch, put together."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def has_several() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def from_all(rows: Tensor) -> Tensor:
    """The rows [B, ...] of all processes in their order, [P B, ...], without a gradient; every process has as many."""
    if not has_several():
        return rows
    pieces = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(pieces, rows.contiguous())
    return torch.cat(pieces)
