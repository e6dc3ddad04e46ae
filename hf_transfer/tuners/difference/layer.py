"""A frozen layer whose weights are changed by gated differences; see the package's docstring for the formulas."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from torch.func import functional_call

from hf_transfer.tuners.difference.config import DifferenceConfig
from hf_transfer.tuners.difference.gates import hard_concrete, open_probability


class DifferenceTensor(nn.Module):
    """The change z * delta of one tensor: gated while its places are sought, then at the places of `mask` alone.

    Args:
        tensor: what changes.
        config: the adapter's settings.
    """

    def __init__(self, tensor: Tensor, config: DifferenceConfig):
        super().__init__()
        self.config = config
        self.is_gated = not config.bias_only
        self.delta = nn.Parameter(torch.zeros_like(tensor))
        self.register_buffer("mask", None)  # [like tensor], bool, once it is known which places change
        if self.is_gated:
            self.gate = nn.Parameter(torch.empty_like(tensor))
            if config.is_structured:
                self.tensor_gate = nn.Parameter(tensor.new_empty(1))
            self.open_gates()

    @torch.no_grad()
    def open_gates(self) -> None:
        """Put the gates where they are at first."""
        for gate in self.gates():
            gate.fill_(self.config.initial_log_alpha / self.config.gate_rate)

    def gates(self) -> list[nn.Parameter]:
        """The gates' parameters: log alpha / gate_rate."""
        return [getattr(self, name) for name in ("gate", "tensor_gate") if hasattr(self, name)]

    @property
    def is_projected(self) -> bool:
        return self.mask is not None

    @property
    def size(self) -> int:
        """Number of weights of the tensor."""
        return self.delta.numel()

    def difference(self, is_random: bool = False) -> Tensor:
        """What is added to the tensor; with `is_random` the gates are drawn."""
        if self.is_projected:
            return self.delta * self.mask
        change = self.delta
        for gate in self.gates():
            change = change * hard_concrete(self.config.gate_rate * gate, is_random)
        return change

    def expected_count(self) -> Tensor:
        """E ||z||_0, the expected number of open gates."""
        product = 1.0
        for gate in self.gates():
            product = product * open_probability(self.config.gate_rate * gate)
        return product.sum()

    @torch.no_grad()
    def keep(self, mask: Tensor) -> None:
        """From now on only the places where `mask` (like the tensor, bool) is true change, without gates."""
        self.delta.copy_(self.difference() * mask)
        self.mask = mask


class SparseDifference(nn.Module):
    """The change of one tensor at few places, as a saved adapter has it; the values can be trained further.

    Args:
        tensor: what changes.
        indices: how many of its weights.
    """

    is_gated, is_projected = False, True

    def __init__(self, tensor: Tensor, indices: int):
        super().__init__()
        self.shape = tensor.shape
        self.register_buffer("index", torch.zeros(indices, dtype=index_type(tensor), device=tensor.device))
        self.value = nn.Parameter(tensor.new_zeros(indices))

    @property
    def size(self) -> int:
        """Number of weights of the tensor."""
        return self.shape.numel()

    def difference(self, is_random: bool = False) -> Tensor:
        """What is added to the tensor."""
        return self.value.new_zeros(self.size).scatter(0, self.index.long(), self.value).view(self.shape)


def index_type(tensor: Tensor) -> torch.dtype:
    """The smallest type that can number the weights of a tensor."""
    return torch.int32 if tensor.numel() < 2**31 else torch.int64


class DifferenceLayer(nn.Module, BaseTunerLayer):
    """Any layer with a weight or bias, and any number of named differences; those of active adapters add up.

    Args:
        base_layer: the layer to adapt.
        adapter_name: name of the first adapter.
        config: its settings.

    Raises:
        ValueError: the layer has none of the parameters that may change.
    """

    adapter_layer_names = ("difference_tuner_tensors",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: DifferenceConfig):
        super().__init__()
        self.base_layer = base_layer
        self.difference_tuner_tensors = nn.ModuleDict()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._originals: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: DifferenceConfig) -> None:
        """Add an adapter that changes nothing at first."""
        base = self.get_base_layer()
        names = ("bias",) if config.bias_only else ("weight", "bias")
        tensors = {name: base._parameters[name] for name in names if base._parameters.get(name) is not None}
        if not tensors:
            raise ValueError(f"{type(base).__name__} has no {' or '.join(names)}: choose other `target_modules`.")
        changes = {name: DifferenceTensor(tensor.data, config) for name, tensor in tensors.items()}
        self.difference_tuner_tensors[adapter_name] = nn.ModuleDict(changes)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def make_sparse(self, adapter_name: str, indices: dict[str, int]) -> None:
        """Make room for a saved adapter that changes so many places of weight and bias."""
        tensors = self.difference_tuner_tensors[adapter_name]
        for name, tensor in tensors.items():
            tensors[name] = SparseDifference(tensor.delta.data, indices.get(name, 0))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.disable_adapters and self.merged:
            self.unmerge()
        names = [name for name in self.active_adapters if name in self.difference_tuner_tensors]
        if self.disable_adapters or self.merged or not names:
            return self.base_layer(*args, **kwargs)
        parameters = dict(self.get_base_layer().named_parameters(recurse=False))
        changed: dict[str, Tensor] = {}
        for adapter in names:
            for name, tensor in self.difference_tuner_tensors[adapter].items():
                start = changed.get(name, parameters[name])
                difference = tensor.difference(is_random=self.training)
                changed[name] = (start.to(difference.dtype) + difference).to(start.dtype)
        return functional_call(self.base_layer, changed, args, kwargs)

    def check_mergeable(self, adapter_names: list[str]) -> None:
        """A difference can always be merged."""

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add differences to the layer's own weights, at the places that change and nowhere else.

        Args:
            safe_merge: refuse differences that would put NaN or infinity into the weights.
            adapter_names: which; the active ones if left out.

        Raises:
            ValueError: a broken adapter with `safe_merge`.
        """
        parameters = dict(self.get_base_layer().named_parameters(recurse=False))
        for adapter in check_adapters_to_merge(self, adapter_names):
            if adapter not in self.difference_tuner_tensors:
                continue
            tensors = self.difference_tuner_tensors[adapter]
            differences = {name: tensor.difference() for name, tensor in tensors.items()}
            if safe_merge and not all(difference.isfinite().all() for difference in differences.values()):
                raise ValueError(f"NaNs detected in the merged weights. The adapter {adapter} seems to be broken.")
            for name, difference in differences.items():
                indices = difference != 0
                old = parameters[name].data[indices]
                self._originals.append((parameters[name], indices, old))
                parameters[name].data[indices] = (old.to(difference.dtype) + difference[indices]).to(old.dtype)
            self.merged_adapters.append(adapter)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the very weights back that were there before."""
        while self._originals:
            parameter, indices, old = self._originals.pop()
            parameter.data[indices] = old
        self.merged_adapters.clear()
