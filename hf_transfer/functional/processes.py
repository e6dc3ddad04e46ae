"""What several processes hold of one batch, put together."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from hf_transfer.core.objective import View


def has_several() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def process_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if has_several() else 1


def process_index() -> int:
    """The index of this process among them."""
    return dist.get_rank() if has_several() else 0


def from_all(rows: Tensor, differentiable: bool = False) -> Tensor:
    """The rows [B, ...] of all processes in their order, [P B, ...]; every process has as many.

    Args:
        rows: of this process.
        differentiable: gradients reach the rows of every process, so that the gradient of a loss computed alike
            everywhere comes out as on one process; otherwise the result has none.
    """
    if not has_several():
        return rows
    if differentiable:
        return torch.cat(all_gather(rows.contiguous()))
    pieces = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(pieces, rows.contiguous())
    return torch.cat(pieces)


def share_of_all(count: Tensor) -> Tensor:
    """What a mean over `count` items of this process counts beside those of the others, whose numbers may differ.

    Gradients are averaged over processes: the average of share times mean is the mean over all items. On one process
    it is 1.
    """
    counts = from_all(count.reshape(1).float())
    return count.float() / counts.mean().clamp_min(torch.finfo(counts.dtype).tiny)


def unit_share(view: View) -> Tensor | float:
    """`share_of_all` of the units of a view; 1 where these are whole rows, of which all processes have as many."""
    if view.row is None or not has_several():
        return 1.0
    return share_of_all(torch.tensor(len(view.row), device=view.row.device))


def from_all_uneven(rows: Tensor) -> Tensor:
    """The rows [B, ...] of all processes in their order, with gradients; processes may have other sizes of any axis.

    All axes but the first are continued with zeros to the largest size.
    """
    if not has_several():
        return rows
    sizes = from_all(torch.tensor([rows.shape], device=rows.device))  # [P, axes]
    largest = sizes.amax(dim=0).tolist()
    missing = [want - have for want, have in zip(largest, rows.shape, strict=True)]
    # F.pad counts axes from the last one on.
    padded = F.pad(rows, [side for width in reversed(missing) for side in (0, width)])
    pieces = all_gather(padded.contiguous()) if rows.is_floating_point() else from_all(padded).split(largest[0])
    return torch.cat([piece[:count] for piece, count in zip(pieces, sizes[:, 0].tolist(), strict=True)])
