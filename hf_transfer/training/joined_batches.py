"""A batch and its augmented copies, which run as one."""

from __future__ import annotations

import re

import torch
from torch import Tensor


def split_copies(inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """The batch itself, and its augmented copies: the inputs under `view_`, `view2_`, `view3_` and so on."""
    plain, copies = {}, {}
    for name, value in inputs.items():
        found = re.fullmatch(r"view(\d*)_(.+)", name)
        if found is None:
            plain[name] = value
        else:
            copies.setdefault(int(found[1] or 1), {})[found[2]] = value
    return plain, [copies[number] for number in sorted(copies)]


def joined_batches(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Batches of the same inputs as one, row after row."""
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def in_float32(states: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
    return None if states is None else tuple(state.float() for state in states)
