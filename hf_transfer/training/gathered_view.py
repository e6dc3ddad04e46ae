"""A view of the rows of all processes, for objectives whose statistic is of the whole batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from hf_transfer.core.objective import View
from hf_transfer.functional.processes import from_all_uneven, has_several


def gathered(view: View, needs: frozenset[str]) -> View:
    """The units of all processes in their order, with all that is asked for.

    Features, logits and hidden states keep their gradients: that of a loss computed alike everywhere comes out as on
    one process. Rows that are shorter than another process's are continued with zeros.

    Args:
        view: of this process.
        needs: of the objectives; inputs, outputs and hidden states are gathered where they are in it.
    """
    if not has_several():
        return view
    inputs = gathered_tensors(view.inputs) if "inputs" in needs else {}
    outputs = gathered_tensors(view.outputs) if "outputs" in needs else {}
    hidden = None
    if "hidden_states" in needs and view.hidden_states is not None:
        hidden = tuple(from_all_uneven(state) for state in view.hidden_states)
    return replace(
        view,
        features=None if view.features is None else from_all_uneven(view.features),
        logits=None if view.logits is None else from_all_uneven(view.logits),
        labels=None if view.labels is None else from_all_uneven(view.labels),
        domain=None if view.domain is None else from_all_uneven(view.domain),
        row=None if view.row is None else from_all_uneven(view.row + first_row(view)),
        inputs=inputs,
        outputs=outputs,
        hidden_states=hidden,
        row_numbers=None if view.row_numbers is None else from_all_uneven(view.row_numbers),
        teacher=None if view.teacher is None else gathered(view.teacher, needs),
        views=tuple(gathered(one, needs) for one in view.views),
    )


def gathered_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: from_all_uneven(tensors[name]) for name in sorted(tensors)}


def first_row(view: View) -> int:
    """How many rows the processes before this one have."""
    own = torch.tensor([len(next(iter(view.inputs.values())))], device=view.row.device)
    return int(from_all_uneven(own)[: dist.get_rank()].sum())
