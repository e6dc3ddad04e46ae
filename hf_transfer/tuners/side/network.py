"""The side network: a copy of a backbone with its first layers alone, on the backbone's own embedding tables."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Borrowed(nn.Module):
    """Runs a module that belongs to another network: its weights are neither trained, copied nor saved here.

    Args:
        owner: the module to run.
        reader: the network that reads its output, in that network's type.
    """

    def __init__(self, owner: nn.Module, reader: nn.Module):
        super().__init__()
        self._modules_elsewhere = (owner, reader)  # in a tuple, so that they are no submodules

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        owner, reader = self._modules_elsewhere
        return owner(*args, **kwargs).to(dtype_of(reader))

    def __getattr__(self, name: str) -> Any:
        """What else is asked of the module, such as its weight or size, is the owner's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_modules_elsewhere"][0], name)


def dtype_of(network: nn.Module) -> torch.dtype:
    """The type of its parameters."""
    return next(network.parameters()).dtype


def side_network(backbone: nn.Module, layers: int) -> nn.Module:
    """A trainable copy of `backbone` with `layers` of its layers.

    Args:
        backbone: any network whose layers are in an `nn.ModuleList` or `nn.Sequential`.
        layers: how many to keep.
    """
    network = copy.deepcopy(backbone)
    keep_first_layers(network, layers)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Embedding):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, Borrowed(backbone.get_submodule(name), network))
    return network.requires_grad_(True)


def keep_first_layers(network: nn.Module, layers: int) -> None:
    """Delete what follows the first `layers` of every run of equal layers: these have outputs like their inputs.

    A `ModuleList` of unequal members is one of stages: it stays, and what is in each is looked at instead.
    """
    for child in network.children():
        is_stack = isinstance(child, (nn.ModuleList, nn.Sequential))
        kinds = [_kind(layer) for layer in child] if is_stack else []
        if not is_stack or (isinstance(child, nn.ModuleList) and len(set(kinds)) > 1):
            keep_first_layers(child, layers)
            continue
        for index in reversed(range(layers, len(kinds))):
            if kinds[index][1] and len(set(kinds[index - layers : index + 1])) == 1:
                del child[index]


def _kind(layer: nn.Module) -> tuple[type, tuple]:
    """What two layers have in common that can stand for each other: class, names and shapes of their parameters."""
    return type(layer), tuple((name, tuple(p.shape)) for name, p in layer.named_parameters())
