"""Tensors kept by parameter name: the starting weights and importances that weight regularisers measure with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class NamedTensors(nn.Module):
    """Tensors under the names of a model's parameters, as buffers: checkpoints carry them.

    Args:
        tensors: copied, by name as in `model.named_parameters()`.
        persistent: checkpoints hold them; otherwise they never change, and are written once for all checkpoints.
    """

    def __init__(self, tensors: Mapping[str, Tensor], persistent: bool = True):
        super().__init__()
        self.persistent = persistent
        self.names = list(tensors)
        for name, value in tensors.items():
            self.register_buffer(_buffer_name(name), value.detach().clone())

    def __getitem__(self, name: str) -> Tensor:
        return self.get_buffer(_buffer_name(name))


def named_parameters(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """The parameters of those names, as in `model.named_parameters()`; of sharded ones (FSDP2) the whole.

    The whole of a sharded parameter is gathered, and every process gets the gradient of its own part.
    """
    parameters = dict(model.named_parameters())
    return {name: whole(parameters[name]) for name in names}


def whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _buffer_name(name: str) -> str:
    # A buffer's own name may hold no dot.
    return name.replace(".", "__")
