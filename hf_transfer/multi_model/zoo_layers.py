"""One layer of several sources: their kernels, aligned and gated, and how a layer of each kind applies them.

By linearity the output of a mixed kernel is the mixture of outputs,

    (sum_e a_e W_e) x = sum_e a_e (W_e x)

so a layer either makes a kernel for every row or E outputs of every row. With P positions a row (tokens, or pixels of
the output) the first takes E + P products of a kernel's size, the second E P; the cheaper one is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hf_transfer.functional.processes import from_all

MOMENTUM = 0.1
"""Share of the newest batch in the moving average of the gates, as in the released code."""
LARGEST_KERNELS = 2**26
"""Numbers in the kernels of all rows of a batch together, 256 MB; beyond, E outputs are made."""


class Gates(nn.Module):
    """a = sigmoid( W_2 relu( W_1 pooled ) + b ), [R, D] -> [R, E].

    W_2 starts at 0 and b where the gates of every row are the given shares, whose sum is 1.

    Args:
        width: D, of the layer's input.
        shares: E.
    """

    def __init__(self, width: int, shares: Sequence[float]):
        super().__init__()
        self.squeeze = nn.Linear(width, width // 4 + 1, bias=False)
        self.expand = nn.Linear(width // 4 + 1, len(shares))
        nn.init.kaiming_normal_(self.squeeze.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.expand.weight)
        with torch.no_grad():
            self.expand.bias.copy_(torch.tensor(shares).logit())

    def forward(self, pooled: Tensor) -> Tensor:
        return self.expand(self.squeeze(pooled).relu()).sigmoid()


class Experts(nn.Module):
    """The kernels of one layer in E sources, with what mixes them.

    Args:
        layer: of one of `KINDS`.
        states: of each source its weight, and its bias where the layer has one.
        lite: one mixture for a whole batch.
        align: a linear map of each source's output channels, which starts as the identity.
        shares: of the sources at the start; alike when left out.
    """

    def __init__(
        self,
        layer: nn.Module,
        states: Sequence[Mapping[str, Tensor]],
        lite: bool,
        align: bool,
        shares: Sequence[float] | None = None,
    ):
        super().__init__()
        count = len(states)
        shares = [1 / count] * count if shares is None else shares
        self.lite = lite
        self.is_table = isinstance(layer, nn.Embedding)
        self.channels_last = self.is_table or isinstance(layer, Conv1D)
        self.kernels = nn.Parameter(torch.stack([state["weight"].detach().clone() for state in states]))
        has_bias = getattr(layer, "bias", None) is not None
        self.biases = nn.Parameter(torch.stack([s["bias"].detach().clone() for s in states])) if has_bias else None
        channels = self.kernels.shape[-1 if self.channels_last else 1]
        self.alignment = nn.Parameter(torch.eye(channels).repeat(count, 1, 1)) if align else None
        self.gates = Gates(input_width(layer), shares)
        self.register_buffer("mean_gates", torch.tensor(shares))
        self.is_stale = True

    def aligned(self) -> Tensor:
        """T_e W_e of every source, [E, ...]."""
        if self.alignment is None:
            return self.kernels
        if self.channels_last:
            return self.kernels @ self.alignment.mT
        return torch.einsum("eop,ep...->eo...", self.alignment, self.kernels)

    def gate(self, pooled: Tensor, training: bool) -> Tensor:
        """Gates [R, E] of the rows that were pooled to [R, D]; in the lite form [E], their mean over the batch.

        In training the moving average follows the mean over the batch.
        """
        gates = self.gates(pooled.to(self.kernels.dtype))
        if not training:
            return gates
        mean = from_all(gates.mean(dim=0, keepdim=True), differentiable=True).mean(dim=0)
        self.is_stale = True
        with torch.no_grad():
            self.mean_gates.lerp_(mean.to(self.mean_gates.dtype), MOMENTUM)
        return mean if self.lite else gates

    def mixed(self, gates: Tensor) -> tuple[Tensor, Tensor | None]:
        """Kernel and bias of gates [..., E], with their leading axes."""
        bias = None if self.biases is None else torch.tensordot(gates, self.biases, dims=1)
        return torch.tensordot(gates, self.aligned(), dims=1), bias

    @torch.no_grad()
    def merge_alignment(self) -> None:
        """Let the kernels be T_e W_e, which changes no output, and saves C products of their size a pass; but for
        embeddings, whose gates read vectors that are not aligned."""
        if self.alignment is not None and not self.is_table:
            self.kernels.copy_(self.aligned())
            self.alignment = None

    @torch.no_grad()
    def folded_into(self, layer: nn.Module) -> None:
        """The mixture of the moving average as the layer's own weight and bias, unless it is there."""
        if self.is_stale:
            kernel, bias = self.mixed(self.mean_gates)
            layer.weight.copy_(kernel)
            if bias is not None:
                layer.bias.copy_(bias)
            self.is_stale = False

    def _load_from_state_dict(self, *args) -> None:
        self.is_stale = True
        super()._load_from_state_dict(*args)


class ZooLayer:
    """The forward of a layer of several sources; mixed into the layer's own class.

    `experts` are its kernels, `sidecar` knows the mask of the rows that the model reads.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        if self.experts.lite and not self.training:
            self.experts.folded_into(self)
            return super().forward(inputs)
        return FORWARDS[kind_of(self)](self, inputs)


def linear(layer: nn.Module, inputs: Tensor) -> Tensor:
    """[R, ..., D] -> [R, ..., O]."""
    experts, flat = layer.experts, inputs.reshape(len(inputs), -1, inputs.shape[-1])
    gates = experts.gate(pooled_tokens(inputs, layer.sidecar.mask), layer.training)
    is_transposed = experts.channels_last
    if gates.ndim == 1:
        kernel, bias = experts.mixed(gates)
        return F.linear(inputs, kernel.mT if is_transposed else kernel, bias)
    if per_row_is_cheaper(layer, len(flat), flat.shape[1]):
        kernels, biases = experts.mixed(gates)
        outputs = flat @ (kernels if is_transposed else kernels.mT)
        outputs = outputs if biases is None else outputs + biases.unsqueeze(1)
    else:
        kernels = experts.aligned() if is_transposed else experts.aligned().mT
        outputs = torch.einsum("re,rpeo->rpo", gates, torch.einsum("rpd,edo->rpeo", flat, kernels))
        outputs = outputs if experts.biases is None else outputs + (gates @ experts.biases).unsqueeze(1)
    return outputs.reshape(*inputs.shape[:-1], outputs.shape[-1])


def convolution(layer: nn.Module, inputs: Tensor) -> Tensor:
    """[R, C, ...] -> [R, O, ...]."""
    experts = layer.experts
    gates = experts.gate(inputs.flatten(2).mean(dim=2), layer.training)
    if gates.ndim == 1:
        return layer._conv_forward(inputs, *experts.mixed(gates))
    positions = math.prod(-(-size // step) for size, step in zip(inputs.shape[2:], layer.stride, strict=True))
    if layer.padding_mode == "zeros" and per_row_is_cheaper(layer, len(inputs), positions):
        kernels, biases = experts.mixed(gates)
        run = F.conv1d if inputs.ndim == 3 else F.conv2d
        joined = inputs.reshape(1, -1, *inputs.shape[2:])
        groups = len(inputs) * layer.groups
        outputs = run(joined, kernels.flatten(0, 1), None, layer.stride, layer.padding, layer.dilation, groups)
        outputs = outputs.reshape(len(inputs), -1, *outputs.shape[2:])
    else:
        each = torch.stack([layer._conv_forward(inputs, kernel, None) for kernel in experts.aligned()])
        outputs = torch.einsum("re,er...->r...", gates, each)
        biases = None if experts.biases is None else gates @ experts.biases
    return outputs if biases is None else outputs + biases.reshape(*biases.shape, *[1] * (outputs.ndim - 2))


def embedding(layer: nn.Module, ids: Tensor) -> Tensor:
    """[R, T] -> [R, T, D], or [T] -> [T, D] as one row. Channels are aligned after the look-up, for tables are long.

    Gates read the vectors of ids that are an input of the model. Positions are no data of a row, and how many there
    are depends on the padding: their gates are alike for all rows.
    """
    experts, rows = layer.experts, ids if ids.ndim > 1 else ids.unsqueeze(0)
    vectors = torch.stack([F.embedding(rows, table, layer.padding_idx) for table in experts.kernels])
    pooled = pooled_tokens(vectors.mean(dim=0), layer.sidecar.mask)
    gates = experts.gate(pooled if layer.sidecar.are_inputs(ids) else torch.zeros_like(pooled[:1]), layer.training)
    if experts.alignment is not None:
        vectors = torch.einsum("eop,e...p->e...o", experts.alignment, vectors)
    if gates.ndim == 1:
        mixed = torch.tensordot(gates, vectors, dims=1)
    else:
        mixed = torch.einsum("re,er...->r...", gates.expand(len(rows), -1), vectors)
    return mixed if ids.ndim > 1 else mixed.squeeze(0)


FORWARDS = {
    nn.Linear: linear,
    Conv1D: linear,
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Embedding: embedding,
}
"""How a layer of each kind mixes its kernels. Layers of other kinds are averaged."""


def kind_of(layer: nn.Module) -> type | None:
    """The class among `FORWARDS` of which a layer is, and no class of its own between; None for other modules."""
    return next((one for one in type(layer).__mro__ if one in FORWARDS), None)


def input_width(layer: nn.Module) -> int:
    """Channels of what the gates read: the layer's input, or of an embedding its output."""
    if isinstance(layer, (nn.Linear, nn.Embedding)):
        return layer.in_features if isinstance(layer, nn.Linear) else layer.embedding_dim
    return layer.nx if isinstance(layer, Conv1D) else layer.in_channels


def per_row_is_cheaper(layer: nn.Module, rows: int, positions: int) -> bool:
    """Whether a kernel for every row costs less than E outputs of every row."""
    experts, size = len(layer.experts.kernels), layer.weight.numel()
    return experts + positions < experts * positions and rows * size <= LARGEST_KERNELS


def pooled_tokens(states: Tensor, mask: Tensor | None) -> Tensor:
    """Mean [R, D] of states [R, ..., D] over all places but those that a mask [R, T] hides."""
    if states.ndim == 2:
        return states
    if mask is None or mask.shape != states.shape[:2]:
        return states.flatten(1, -2).mean(dim=1)
    weights = mask.to(states.dtype).reshape(*mask.shape, *[1] * (states.ndim - 2)).expand_as(states)
    return (states * weights).flatten(1, -2).sum(dim=1) / weights.flatten(1, -2).sum(dim=1).clamp(min=1)
