"""A frozen backbone with side networks beside it; see the package's docstring for the formula."""

from __future__ import annotations

import math
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.utils import ModelOutput

from hf_transfer.tuners.side.config import SideConfig
from hf_transfer.tuners.side.network import dtype_of, side_network

BLENDED = ("last_hidden_state", "pooler_output")


class SideLayer(nn.Module, BaseTunerLayer):
    """The backbone, run without gradients or dropout, and any number of named side networks.

    Several active adapters are blended in one after the other, each with what the earlier ones gave. Whatever else
    is asked of the backbone (its embeddings, its configuration) is answered by it.

    Args:
        base_layer: the backbone; it returns a tensor, a tuple that begins with one, or a `ModelOutput`.
        adapter_name: name of the first adapter.
        config: its settings.
    """

    adapter_layer_names = ("side_tuner_networks", "side_tuner_alpha")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: SideConfig):
        super().__init__()
        self.base_layer = base_layer
        self.side_tuner_networks = nn.ModuleDict()
        self.side_tuner_alpha = nn.ParameterDict()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(self.base_layer, name)

    def update_layer(self, adapter_name: str, config: SideConfig) -> None:
        """Add a side network that begins as the backbone's first layers."""
        base = self.get_base_layer()
        self.side_tuner_networks[adapter_name] = side_network(base, config.side_layers)
        logit = math.log(config.initial_alpha / (1 - config.initial_alpha))
        start = next(base.parameters()).new_full((), logit)
        self.side_tuner_alpha[adapter_name] = nn.Parameter(start)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def train(self, mode: bool = True) -> SideLayer:
        """As every module's, but the frozen backbone stays in evaluation mode."""
        super().train(mode)
        self.base_layer.eval()
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        names = [name for name in self.active_adapters if name in self.side_tuner_networks]
        if self.disable_adapters or not names:
            return self.base_layer(*args, **kwargs)
        if kwargs.get("past_key_values") is not None:
            raise ValueError(
                "side-tuning runs two networks, which cannot share one cache of keys and values: pass "
                "`use_cache=False`."
            )
        with torch.no_grad():
            output = self.base_layer(*args, **kwargs)
        for name in names:
            network = self.side_tuner_networks[name]
            side = network(*_floats_as(dtype_of(network), args), **_floats_as(dtype_of(network), kwargs))
            output = blend(output, side, torch.sigmoid(self.side_tuner_alpha[name]))
        return output

    def check_mergeable(self, adapter_names: list[str]) -> None:
        """Raises ValueError: two networks are not one."""
        raise ValueError(
            "a side network runs beside the backbone and cannot be merged into its weights: keep it as an adapter "
            "(`save_pretrained`, `PeftModel.from_pretrained`), or take it off with `unload()`."
        )

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        self.check_mergeable(adapter_names or self.active_adapters)

    def unmerge(self) -> None:
        """Nothing is ever merged."""


def _floats_as(dtype: torch.dtype, inputs: Any) -> Any:
    """Tuple or mapping of inputs with every floating tensor in this type."""
    if isinstance(inputs, dict):
        return dict(zip(inputs, _floats_as(dtype, tuple(inputs.values())), strict=True))
    return tuple(x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)


def blend(base: Any, side: Any, alpha: Tensor) -> Any:
    """alpha * base + (1 - alpha) * side of the features in two outputs of one kind; the rest is the base's.

    Raises:
        ValueError: the outputs have no features.
    """

    def mix(one: Tensor, other: Tensor) -> Tensor:
        return (alpha * one + (1 - alpha) * other).to(one.dtype)

    if isinstance(base, Tensor):
        return mix(base, side)
    if isinstance(base, ModelOutput):
        names = [name for name in BLENDED if isinstance(base.get(name), Tensor)]
        if names:
            return type(base)(**{**base, **{name: mix(base[name], side[name]) for name in names}})
    elif isinstance(base, tuple) and base and isinstance(base[0], Tensor):
        pairs = zip(base[:2], side[:2], strict=True)
        mixed = [mix(one, other) if isinstance(one, Tensor) else one for one, other in pairs]
        return (*mixed, *base[2:])
    raise ValueError(f"the backbone gives {type(base).__name__} without {' or '.join(BLENDED)}: nothing to blend.")
