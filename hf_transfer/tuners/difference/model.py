"""Puts differences into a model, and into files: index and value of what changed."""

from __future__ import annotations

import torch
from peft import PeftConfig
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hf_transfer.tuners.difference.config import DifferenceConfig
from hf_transfer.tuners.difference.layer import DifferenceLayer, DifferenceTensor, SparseDifference, index_type
from hf_transfer.tuners.target_layers import block_layers, layers_with_bias
from hf_transfer.tuners.tuner import Tuner

DENSE, SPARSE = ("delta", "mask", "gate", "tensor_gate"), ("index", "value")
CONTAINER, IN_PEFT_MODEL = "difference_tuner_tensors", "base_model.model."


class DifferenceModel(Tuner):
    """A model with differences: `get_peft_model(model, DifferenceConfig(share=0.005))`.

    After the projection an adapter is saved sparse: per tensor the flat `index` [k] of the places that change and
    their `value` [k] in float32 (or the type of the differences). Before it, all that training needs is saved.
    """

    prefix = "difference_tuner_"
    tuner_layer_cls = DifferenceLayer

    def default_targets(self, config: DifferenceConfig) -> set[str]:
        """The linear layers and convolutions of the blocks; for BitFit every layer that has a bias."""
        if config.bias_only:
            return layers_with_bias(self.model)
        return set(block_layers(self.model, (nn.Linear, Conv1D, nn.Conv2d)))

    def _create_and_replace(
        self,
        peft_config: DifferenceConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        super()._create_and_replace(peft_config, adapter_name, target, target_name, parent, current_key)
        if peft_config.kept is not None:
            indices = {part: peft_config.kept.get(f"{current_key}.{part}", 0) for part in ("weight", "bias")}
            getattr(parent, target_name).make_sparse(adapter_name, indices)

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        state = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        kept = {}
        for name, tensor in tensors_of(model, adapter_name).items():
            if not tensor.is_projected:
                continue
            if isinstance(tensor, DifferenceTensor):
                dense = {part: state.pop(f"{name}.{part}", None) for part in DENSE}
                state[f"{name}.index"], state[f"{name}.value"] = to_sparse(dense["delta"], dense["mask"])
            layer, _, part = name.removeprefix(IN_PEFT_MODEL).partition(f".{CONTAINER}.{adapter_name}.")
            kept[f"{layer}.{part}"] = len(state[f"{name}.index"])
        config.kept = kept or None  # so that whoever loads the file makes room for as much
        return state

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        state = dict(state_dict)
        for name, tensor in tensors_of(model, adapter_name).items():
            if isinstance(tensor, SparseDifference):
                continue
            # PEFT's files name tensors without the adapter, and as in a PeftModel even where only layers were injected
            stored = cls._remove_adapter_name_from_key(f"{name}.delta", adapter_name).removesuffix(".delta")
            is_there = f"{stored}.index" in state or f"{stored}.delta" in state
            stored = stored if is_there else f"{IN_PEFT_MODEL}{stored}"
            if f"{stored}.index" not in state:
                tensor.mask = None
                continue
            index, value = (state.pop(f"{stored}.{part}") for part in SPARSE)
            delta, mask = to_dense(index, value, tensor.delta.shape)
            tensor.mask = torch.zeros_like(mask, device=tensor.delta.device)
            state[f"{stored}.delta"], state[f"{stored}.mask"] = delta, mask
            state |= {f"{stored}.{part}": gate.data for part, gate in tensor.named_parameters() if part != "delta"}
        return super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state)


def tensors_of(model: nn.Module, adapter_name: str) -> dict[str, DifferenceTensor | SparseDifference]:
    """The differences of one adapter, by module name."""
    return {
        f"{name}.{CONTAINER}.{adapter_name}.{part}": tensor
        for name, layer in model.named_modules()
        if isinstance(layer, DifferenceLayer) and adapter_name in layer.difference_tuner_tensors
        for part, tensor in layer.difference_tuner_tensors[adapter_name].items()
    }


def to_sparse(delta: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Flat index [k] and value [k] of the places where `mask` is true."""
    index = mask.flatten().nonzero().flatten()
    value = delta.flatten()[index]
    return index.to(index_type(delta)), value


def to_dense(index: Tensor, value: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """The tensor and mask, both of `shape`, that `to_sparse` was given; zeros outside the mask.

    Raises:
        ValueError: an index lies outside the tensor.
    """
    if len(index) and (index.min() < 0 or index.max() >= shape.numel()):
        raise ValueError(
            f"the adapter changes place {int(index.max())} of a tensor of {shape.numel()}: another model's."
        )
    indices = index.long()
    delta = torch.zeros(shape.numel(), dtype=value.dtype, device=value.device)
    mask = torch.zeros(shape.numel(), dtype=torch.bool, device=value.device)
    delta[indices], mask[indices] = value, True
    return delta.view(shape), mask.view(shape)
