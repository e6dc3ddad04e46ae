"""Causal flow attention, chunk by chunk."""

import torch
from torch import Tensor

from .flow_feature_maps import apply_feature_map
from .flow_state import FlowState


def causal_flow_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    state: FlowState,
    feature_map: str,
    competition_clamp: float,
    eps: float,
    chunk_size: int,
) -> tuple[Tensor, FlowState]:
    """Placeholder-free simple form: one chunk after another, each from the state the last one left."""
    dtype = state.memory.dtype
    outputs = []
    keep = torch.ones(query.shape[0], query.shape[2], dtype=torch.bool, device=query.device) if mask is None else mask
    for start in range(0, query.shape[2], chunk_size):
        part = slice(start, start + chunk_size)
        real = keep[:, None, part]
        a = apply_feature_map(query[:, :, part].to(dtype), feature_map).masked_fill(~real[..., None], 0)
        b = apply_feature_map(key[:, :, part].to(dtype), feature_map).masked_fill(~real[..., None], 0)
        n = state.num_tokens[:, None, None] + real.cumsum(-1)
        total = n[:, 0, -1]
        n = n.clamp(min=1).to(dtype)
        key_sum = state.key_sum[:, :, None] + b.cumsum(2)
        query_sum = state.query_sum[:, :, None] + a.cumsum(2)
        incoming = ((a + eps) * (key_sum + eps)).sum(-1)
        outgoing = ((b + eps) * (query_sum + eps)).sum(-1)
        key_flow = state.key_flow[:, :, None] + (b * (n / outgoing)[..., None]).cumsum(2)
        query_flow = state.query_flow[:, :, None] + (a * (n / incoming)[..., None]).cumsum(2)
        conserved_in = ((a + eps) * (key_flow + eps)).sum(-1) / n
        conserved_out = ((b + eps) * (query_flow + eps)).sum(-1) / n
        e = conserved_out.clamp(-competition_clamp, competition_clamp).exp() * real
        z = state.competition[:, :, None] + e.cumsum(-1)
        c = e * n / z.clamp(min=torch.finfo(dtype).tiny)
        w = (value[:, :, part].to(dtype) * c[..., None]).masked_fill(~real[..., None], 0)
        y = a @ state.memory + (a @ b.mT).tril() @ w
        outputs.append((y * (torch.sigmoid(conserved_in) / incoming)[..., None]).to(value.dtype))
        state = FlowState(key_sum[:, :, -1], query_sum[:, :, -1], key_flow[:, :, -1], query_flow[:, :, -1],
                          z[..., -1], state.memory + b.mT @ w, total)
    return torch.cat(outputs, 2), state
