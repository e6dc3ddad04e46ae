"""Causal flow attention whose aggregation runs in the Triton kernels of flash-linear-attention (`fla-core`, MIT).

    o_i = a_i (memory + sum_{j <= i} b_j^T w_j),   a = phi(q), b = phi(k), w = the competed values

is linear attention without gate or denominator: `chunk_simple_gla` computes it for sequences and
`fused_recurrent_simple_gla` for one token, both with scale 1. Flows, competition and allocation stay prefix sums in
float32. Kernels know no second derivatives: those come from plain operations.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258; Yang et al., ICML 2024,
https://huggingface.co/papers/2312.06635 for the kernels.
"""

import importlib
import os
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional

from .flow_options import FlowOptions, nonzero
from .flow_state import FlowState
from .flow_tracing import in_full_precision, is_traced, needs_plain_backward

KERNELS = ("auto", "torch", "fla")


def runs_in_kernels(kernel: str, query: Tensor) -> bool:
    """Whether "auto", "torch" or "fla" means fla's kernels for these queries.

    Raises:
        ValueError: an unknown name, or "fla" where its kernels cannot run.
    """
    if kernel not in KERNELS:
        raise ValueError(f"`kernel` should be one of {', '.join(KERNELS)}, got {kernel!r}.")
    # what traces does not follow the kernels
    if kernel == "torch" or (kernel == "auto" and (is_traced() or not query.is_cuda)):
        return False
    installed = find_spec("fla") is not None
    on_device = query.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    if kernel == "fla" and not (installed and on_device):
        missing = "a CUDA device" if installed else "`pip install fla-core`"
        raise ValueError(f"`kernel='fla'` needs {missing}: use `kernel='auto'`, which does without it.")
    return installed


def kernel_flow_attention(
    query: Tensor,  # [B, H, L, D]
    key: Tensor,  # [B, H, L, D]
    value: Tensor,  # [B, H, L, M]
    mask: Tensor | None,  # [B, L] bool
    state: FlowState,
    options: FlowOptions,
) -> tuple[Tensor, FlowState]:
    """As `causal_flow_attention`: output [B, H, L, M] in the dtype of `value` and the state after the last token."""
    dtype, eps = state.memory.dtype, options.eps
    a, b, keep = options.features(query.to(dtype)), options.features(key.to(dtype)), None
    steps = torch.arange(1, query.shape[2] + 1, device=query.device)[None]
    if mask is not None:
        keep, steps = mask[:, None], mask.cumsum(-1)
        a, b, value = (x.masked_fill(~keep[..., None], 0) for x in (a, b, value))
    counts = state.num_tokens[:, None] + steps
    n = counts.clamp(min=1).to(dtype)[:, None]

    def flow(reader: Tensor, sums: Tensor) -> Tensor:
        return ((reader + eps) * (sums + eps)).sum(-1)

    def prefix(start: Tensor, terms: Tensor) -> Tensor:
        return start[:, :, None] + terms.cumsum(2)

    key_sum, query_sum = prefix(state.key_sum, b), prefix(state.query_sum, a)
    incoming, outgoing = flow(a, key_sum), flow(b, query_sum)
    key_flow = prefix(state.key_flow, b * (n / outgoing)[..., None])
    query_flow = prefix(state.query_flow, a * (n / incoming)[..., None])
    kept, sent = flow(a, key_flow) / n, flow(b, query_flow) / n
    strength = options.strength(sent, keep)
    rivals = state.competition[..., None] + strength.cumsum(-1)
    competed = value.to(dtype) * (strength * n / nonzero(rivals))[..., None]
    # tensor cores want the dtype of the model; they add up in float32
    factors = [x.to(value.dtype).transpose(1, 2).contiguous() for x in (a, b, competed)]
    aggregated, memory = _Aggregation.apply(*factors, state.memory)
    output = aggregated.transpose(1, 2) * (torch.sigmoid(kept) / incoming)[..., None]
    last = (x[:, :, -1] for x in (key_sum, query_sum, key_flow, query_flow, rivals))
    return output.to(value.dtype), FlowState(*last, memory, counts[:, -1])


class _Aggregation(torch.autograd.Function):
    """(o, memory after the last token) of [B, L, H, D] a and b, [B, L, H, M] w and [B, H, D, M] memory."""

    @staticmethod
    def forward(ctx, a, b, w, memory):
        kernels = importlib.import_module("fla.ops.simple_gla")
        run = kernels.fused_recurrent_simple_gla if a.shape[1] == 1 else kernels.chunk_simple_gla
        leaves = [x.detach().requires_grad_() for x in (a, b, w, memory)]
        with torch.set_grad_enabled(any(ctx.needs_input_grad)):
            outputs = run(*leaves[:3], scale=1.0, initial_state=leaves[3], output_final_state=True)
        ctx.save_for_backward(a, b, w, memory)
        ctx.graph = leaves, outputs
        return tuple(x.detach() for x in outputs)

    @staticmethod
    @in_full_precision
    def backward(ctx, *gradients):
        if not needs_plain_backward(*gradients):
            leaves, outputs = ctx.graph
            return torch.autograd.grad(outputs, leaves, gradients, retain_graph=True, allow_unused=True)
        inputs, options = ctx.saved_tensors, {"create_graph": torch.is_grad_enabled(), "allow_unused": True}
        with torch.enable_grad():
            wanted = [x for x in inputs if x.requires_grad]
            found = iter(torch.autograd.grad(_plain(*inputs), wanted, gradients, **options))
        return tuple(next(found) if x.requires_grad else None for x in inputs)


def _plain(a: Tensor, b: Tensor, w: Tensor, memory: Tensor, chunk: int = 64) -> tuple[Tensor, Tensor]:
    """The aggregation in operations that have second derivatives, chunk by chunk."""
    length = a.shape[1]
    padding = -length % chunk
    padded = (functional.pad(x, (0, 0, 0, 0, 0, padding)).transpose(1, 2) for x in (a, b, w))
    a, b, w = (x.unflatten(2, (-1, chunk)) for x in padded)
    sums = (b.mT @ w).to(memory.dtype)
    after = memory[:, :, None] + sums.cumsum(2)
    outputs = (a @ b.mT).tril() @ w + (a.to(memory.dtype) @ (after - sums)).to(w.dtype)
    return outputs.flatten(2, 3)[:, :, :length].transpose(1, 2), after[:, :, -1]
