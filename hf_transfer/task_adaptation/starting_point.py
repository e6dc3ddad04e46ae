"""A frozen copy of named parameters, from which weight regularisers measure how far training has moved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn


def named_trainable(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """The parameters of those names, as in `model.named_parameters()`."""
    parameters = dict(model.named_parameters())
    return {name: parameters[name] for name in names}


class StartingPoint(nn.Module):
    """Copies of a model's parameters as buffers, so that a resumed run measures from the same point.

    Args:
        model: the model in its starting state.
        names: which parameters, as in `model.named_parameters()`.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]):
        super().__init__()
        self.names = list(names)
        for name, parameter in named_trainable(model, self.names).items():
            self.register_buffer(_buffer_name(name), parameter.detach().clone())

    def pairs(self, model: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(name, current parameter, starting value) of every parameter."""
        for name, parameter in named_trainable(model, self.names).items():
            yield name, parameter, self.get_buffer(_buffer_name(name))


def _buffer_name(name: str) -> str:
    # A buffer's own name may hold no dot.
    return name.replace(".", "__")
