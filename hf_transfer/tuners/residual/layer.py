"""A frozen layer with residual adapters on it; see the package's docstring for the formulas."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

from hf_transfer.tuners.residual.config import ResidualConfig


class KroneckerLinear(nn.Module):
    """A linear map whose matrix is W = sum_i A_i (x) (s_i t_i^T), with n^3 + in + out numbers.

    Args:
        in_features: width of the input, a multiple of `terms`.
        out_features: width of the output, a multiple of `terms`.
        terms: n.
        bias: whether it has one.

    Raises:
        ValueError: `terms` does not divide both widths.
    """

    def __init__(self, in_features: int, out_features: int, terms: int, bias: bool = True):
        super().__init__()
        if in_features % terms or out_features % terms:
            raise ValueError(
                f"`kronecker_terms` should divide the widths {in_features} and {out_features}, got {terms}."
            )
        self.rules = nn.Parameter(torch.randn(terms, terms, terms) / terms)
        self.rows = nn.Parameter(torch.randn(terms, out_features // terms))
        self.columns = nn.Parameter(torch.randn(terms, in_features // terms) / (in_features // terms) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    @property
    def weight(self) -> Tensor:
        """W, [out, in]."""
        blocks = torch.einsum("nab,nc,nd->acbd", self.rules, self.rows, self.columns)
        return blocks.reshape(blocks.shape[0] * blocks.shape[1], -1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Bottleneck(nn.Module):
    """s * U f(D x + a) + b, zero at first.

    Args:
        in_width: channels of its input.
        out_width: channels of its output.
        config: the adapter's settings.
        stride: of the 1x1 convolution D; None for inputs whose last dimension is the channels.
    """

    def __init__(self, in_width: int, out_width: int, config: ResidualConfig, stride: tuple[int, int] | None = None):
        super().__init__()
        has_bias = config.non_linearity is not None
        if stride is not None:
            if config.kronecker_terms is not None:
                raise ValueError("`kronecker_terms` is for linear layers: leave it out for convolutions.")
            self.down: nn.Module = nn.Conv2d(in_width, config.r, 1, stride=stride, bias=has_bias)
            self.up: nn.Module = nn.Conv2d(config.r, out_width, 1, bias=has_bias)
        elif config.kronecker_terms is not None:
            self.down = KroneckerLinear(in_width, config.r, config.kronecker_terms, has_bias)
            self.up = KroneckerLinear(config.r, out_width, config.kronecker_terms, has_bias)
        else:
            self.down = nn.Linear(in_width, config.r, bias=has_bias)
            self.up = nn.Linear(config.r, out_width, bias=has_bias)
        nn.init.zeros_(self.up.rows if isinstance(self.up, KroneckerLinear) else self.up.weight)
        if has_bias:
            nn.init.zeros_(self.down.bias)
            nn.init.zeros_(self.up.bias)
        self.activation = nn.Identity() if config.non_linearity is None else ACT2FN[config.non_linearity]
        self.dropout = nn.Dropout(config.dropout)
        self.scaling = config.scaling
        self.is_parallel = config.placement == "parallel"
        self.is_linear = config.non_linearity is None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.down(self.dropout(x.to(self.dtype))))
        output = self.up(hidden)
        return output if self.scaling == 1.0 else self.scaling * output

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def matrix(self) -> Tensor:
        """s U D of a linear bottleneck, [out, in]."""
        return self.scaling * self.up.weight.flatten(1) @ self.down.weight.flatten(1)


class ResidualLayer(nn.Module, BaseTunerLayer):
    """A linear layer (also GPT-2's Conv1D) or 2D convolution with any number of named adapters.

    Active adapters are applied in the order in which they were activated, each serial one on the sum so far.

    Args:
        base_layer: the layer to adapt.
        adapter_name: name of the first adapter.
        config: its settings.

    Raises:
        ValueError: another kind of layer, or a convolution to which a parallel adapter cannot be added.
    """

    adapter_layer_names = ("residual_tuner_bottlenecks",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: ResidualConfig):
        super().__init__()
        self.base_layer = base_layer
        self.residual_tuner_bottlenecks = nn.ModuleDict()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._originals: tuple[Tensor, Tensor | None] | None = None
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: ResidualConfig) -> None:
        """Add an adapter that changes nothing at first."""
        base = self.get_base_layer()
        in_width, out_width = widths(base)
        stride = None
        if isinstance(base, nn.Conv2d):
            stride = base.stride if config.placement == "parallel" else (1, 1)
            if config.placement == "parallel":
                check_keeps_size(base)
        reads = in_width if config.placement == "parallel" else out_width
        self.residual_tuner_bottlenecks[adapter_name] = Bottleneck(reads, out_width, config, stride)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            if name in self.residual_tuner_bottlenecks:
                bottleneck = self.residual_tuner_bottlenecks[name]
                result = result + bottleneck(x if bottleneck.is_parallel else result).to(result.dtype)
        return result

    def check_mergeable(self, adapter_names: list[str]) -> None:
        """Raises ValueError, with what to do instead, where one of the adapters cannot become part of the weights."""
        here = self.residual_tuner_bottlenecks
        bottlenecks = [here[name] for name in adapter_names if name in here]
        if any(not bottleneck.is_linear for bottleneck in bottlenecks):
            raise ValueError(
                "a residual adapter with a non-linearity cannot be merged into the layer that it follows: keep it as "
                "an adapter (`save_pretrained`, `PeftModel.from_pretrained`), take it off with `unload()`, or train "
                "one with `non_linearity=None`, which can be merged."
            )
        if bottlenecks and getattr(self.get_base_layer(), "groups", 1) > 1:
            raise ValueError(
                "a residual adapter mixes all channels and cannot be merged into a grouped convolution: keep it as an "
                "adapter, or leave such layers out with `exclude_modules`."
            )

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Make linear adapters part of the layer's weights.

        Args:
            safe_merge: refuse adapters that would put NaN or infinity into the weights.
            adapter_names: which; the active ones if left out.

        Raises:
            ValueError: an adapter that cannot be merged, or a broken one with `safe_merge`.
        """
        names = [n for n in check_adapters_to_merge(self, adapter_names) if n in self.residual_tuner_bottlenecks]
        self.check_mergeable(names)
        base = self.get_base_layer()
        for name in names:
            weight, bias = self._merged(self.residual_tuner_bottlenecks[name])
            if safe_merge and not (weight.isfinite().all() and (bias is None or bias.isfinite().all())):
                raise ValueError(f"NaNs detected in the merged weights. The adapter {name} seems to be broken.")
            if self._originals is None:
                self._originals = (base.weight.data, None if base.bias is None else base.bias.data)
            base.weight.data = weight.to(base.weight.dtype)
            if bias is not None:
                base.bias.data = bias.to(base.bias.dtype)
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Put the very weights back that were there before."""
        if self._originals is not None:
            base = self.get_base_layer()
            base.weight.data, bias = self._originals
            if bias is not None:
                base.bias.data = bias
        self._originals = None
        self.merged_adapters.clear()

    def _merged(self, bottleneck: Bottleneck) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the base layer with one linear adapter in them."""
        base = self.get_base_layer()
        matrix = bottleneck.matrix()
        weight = base.weight.data.to(matrix.dtype)
        weight = weight.T if isinstance(base, Conv1D) else weight
        bias = None if base.bias is None else base.bias.data.to(matrix.dtype)
        if bottleneck.is_parallel:
            change = torch.zeros_like(weight)
            center = tuple(size // 2 for size in weight.shape[2:])
            change[(..., *center)] = matrix
        else:
            change = (matrix @ weight.flatten(1)).view_as(weight)
            bias = None if bias is None else bias + matrix @ bias
        weight = weight + change
        return weight.T.contiguous() if isinstance(base, Conv1D) else weight, bias


def widths(layer: nn.Module) -> tuple[int, int]:
    """Channels of input and output of a linear layer or 2D convolution.

    Raises:
        ValueError: another kind of layer.
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, Conv1D):
        return layer.weight.shape[0], layer.weight.shape[1]
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels
    raise ValueError(
        f"a residual adapter is for nn.Linear, transformers' Conv1D and nn.Conv2d layers, got {type(layer).__name__}: "
        "choose other `target_modules`."
    )


def check_keeps_size(layer: nn.Conv2d) -> None:
    """Raises ValueError where a 1x1 convolution of the same stride has an output of another size."""
    reach = [(size - 1) * dilation for size, dilation in zip(layer.kernel_size, layer.dilation, strict=True)]
    padding = reach if layer.padding == "same" else [2 * one for one in layer.padding if not isinstance(one, str)]
    if padding != reach or any(one % 2 for one in reach):
        raise ValueError(
            f"a parallel adapter needs a convolution with an odd kernel, padded to keep the size, got {layer}: use "
            '`placement="serial"` or other `target_modules`.'
        )
