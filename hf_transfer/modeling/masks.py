"""Which of a model's states belong to real input.

A text model has a state for each token. A speech model has a state for each frame, far fewer than its samples:
how many frames some samples give is the model's own rule (`_get_feat_extract_output_lengths`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

RULE = "_get_feat_extract_output_lengths"


class UnknownMaskError(ValueError):
    """Nothing says which states the padded part of an input has."""


def state_mask(model: nn.Module, mask: Tensor | None, states: int) -> Tensor | None:
    """Mask [B, T] of T = `states` states of real input, from the mask [B, L] of the input; None where all are real.

    Raises:
        UnknownMaskError: some of the input is padding, and the model has no rule from L places to T states.
    """
    if mask is None or mask.ndim != 2 or bool(mask.all()):
        return None
    if mask.shape[1] == states:
        return mask
    for *real, whole in state_counts(model, [*mask.long().sum(dim=1).tolist(), mask.shape[1]]):
        if whole == states:
            # A row too short for a frame of its own keeps the first one.
            counts = torch.tensor(real, device=mask.device).clamp(min=1)
            return (torch.arange(states, device=mask.device) < counts[:, None]).to(mask.dtype)
    raise UnknownMaskError(
        f"{type(model).__name__} makes {states} states of {mask.shape[1]} places of input and has no rule which of "
        'them are padding: give inputs without padding, or use `pooling="cls"`.'
    )


def state_counts(model: nn.Module, lengths: list[int]) -> Iterator[list[int]]:
    """Numbers of states of inputs of these lengths; one list for each kind of layer that the model has a rule for."""
    squeeze = getattr(getattr(model, "config", None), "squeeze_factor", None)
    for module in model.modules():
        rule = getattr(module, RULE, None)
        if rule is None:
            continue
        # The states before an adapter that shortens them, and those after it.
        is_choice = "add_adapter" in inspect.signature(rule).parameters
        for options in ({"add_adapter": False}, {"add_adapter": True}) if is_choice else ({},):
            # One rule knows no tensors of several lengths, another gives the lengths after two layers.
            counts = [as_list(rule(torch.tensor(length), **options)) for length in lengths]
            for of_layer in zip(*counts):
                yield list(of_layer)
                if squeeze is not None:
                    # The blocks of SEW read the mean of every `squeeze` frames.
                    yield [count // squeeze for count in of_layer]


def as_list(counts: Any) -> list[int]:
    return [int(count) for count in (counts if isinstance(counts, tuple) else (counts,))]
