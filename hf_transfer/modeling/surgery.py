"""Modules of a model replaced in place, and tensors kept beside it: what converters are made of.

A converted model has the parameter names of the plain one, so that its saved folder is an ordinary one. What the plain
model has no place for stands beside it: TransferModel takes it in, moves and trains it with the model, and saves it
with the objectives (`objectives.safetensors`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor, nn

from hf_transfer.modeling.anatomy import unwrap_peft

_SIDECARS = "_hf_transfer_sidecars"


class Sidecar(nn.Module):
    """Parameters and buffers that a converter keeps beside the model, under the converter's name.

    `needs` says what the batches must hold, `progress` which share of the training is done.
    """

    needs: frozenset[str] = frozenset()
    progress: float = 0.0

    def begin(self, domain: Tensor | None) -> None:
        """Called before every forward of the model with the domain of its rows, [B] or None."""


def keep_sidecar(model: nn.Module, name: str, state: Sidecar) -> None:
    """Leave `state` beside the model, where it is no part of its state dict.

    Raises:
        ValueError: there is one of this name, so that the model was converted before.
    """
    kept = unwrap_peft(model).__dict__.setdefault(_SIDECARS, {})
    if name in kept:
        raise ValueError(f"this model was converted by `{name}` before.")
    kept[name] = state


def sidecars_of(model: nn.Module) -> dict[str, Sidecar]:
    """What converters left beside the model, by their names."""
    return dict(unwrap_peft(model).__dict__.get(_SIDECARS, {}))


@cache
def mixed_class(mixin: type, plain: type[nn.Module]) -> type[nn.Module]:
    """A class with the methods of `mixin` before those of `plain`."""
    return type(f"{mixin.__name__}{plain.__name__}", (mixin, plain), {})


def reclass(module: nn.Module, mixin: type, **attributes: Any) -> None:
    """Give a module the methods of `mixin` in place: its tensors, its name and whoever holds it stay as they are.

    Args:
        module: an instance of any module class.
        mixin: methods to put before those of the class.
        attributes: values it needs; modules among them do not become submodules.
    """
    module.__class__ = mixed_class(mixin, type(module))
    module.__dict__.update(attributes)


def modules_where(model: nn.Module, chosen: Callable[[nn.Module], bool]) -> dict[str, nn.Module]:
    """The chosen modules by their names, in order."""
    return {name: module for name, module in model.named_modules() if chosen(module)}
