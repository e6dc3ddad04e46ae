"""Flow attention: attention in linear time by conservation of flow between sources (keys) and sinks (queries).

    incoming   I_i  = phi(q_i) . sum_j phi(k_j)           outgoing   O_j  = phi(k_j) . sum_i phi(q_i)
    conserved  I^_i = phi(q_i) . sum_j phi(k_j) / O_j     conserved  O^_j = phi(k_j) . sum_i phi(q_i) / I_i
    competition  V^_j = softmax_j(clamp(O^))_j * S * v_j
    aggregation  A_i  = (phi(q_i) / I_i) (sum_j phi(k_j)^T V^_j)
    allocation   R_i  = sigmoid(I^_i * L / S) A_i

with eps added to both factors of every product that makes I, O, I^ and O^. In the causal form every sum runs over the
positions up to i, 1/I and 1/O are multiplied by n_i = i + 1 and I^ and O^ divided by it, the softmax becomes
n_j exp(O^_j) / sum_{t <= j} exp(O^_t), and L/S is 1; that is a recurrence over `FlowState`. Masked tokens have phi = 0, no
share of the softmax, and L, S and n count the real tokens of each row.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258; defaults are the authors' released ones.
"""

import torch
from torch import Tensor

from .flow_attention_bidirectional import bidirectional_flow_attention
from .flow_attention_causal import causal_flow_attention
from .flow_options import FEATURE_MAPS, MAX_COMPETITION_CLAMP, FlowOptions
from .flow_state import FlowState

DEFAULT_CHUNK_SIZE = 64


def flow_attention(
    query: Tensor,  # [B, H, L, D]
    key: Tensor,  # [B, H, S, D]
    value: Tensor,  # [B, H, S, M]
    *,
    causal: bool = False,
    key_mask: Tensor | None = None,  # [B, S] bool, True = keep
    query_mask: Tensor | None = None,  # [B, L] bool, True = keep
    feature_map: str = "sigmoid",
    competition_clamp: float = 1.0,
    eps: float = 1e-6,
    state: FlowState | None = None,
    return_state: bool = False,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> Tensor | tuple[Tensor, FlowState]:
    """Flow attention [B, H, L, M] in time and memory linear in L + S; float32 inside for half-precision inputs.

    The causal form needs L = S, takes its mask as either argument (they are the same tokens), can continue from a `state`
    and gives the state it ends in with `return_state`; gradients flow through both. Masked queries give 0.

    Raises:
        ValueError: shapes that do not fit, an empty sequence, a mask that is not boolean or has the wrong shape, causal with
            L != S or with two different masks, a state without causal, an unknown feature map, a value out of range.
    """
    _check_inputs(query, key, value, causal, key_mask, query_mask)
    _check_options(feature_map, competition_clamp, eps, chunk_size)
    if not causal:
        if state is not None or return_state:
            raise ValueError("`state` and `return_state` need `causal=True`: the bidirectional form has no state.")
        with torch.autocast(query.device.type, enabled=False):
            return bidirectional_flow_attention(
                query, key, value, key_mask, query_mask, FlowOptions(feature_map, competition_clamp, eps)
            )
    mask = _common_mask(key_mask, query_mask)
    if state is None:
        batch_size, num_heads, _, key_dim = query.shape
        dtype = _compute_dtype(query, value)
        state = FlowState.zeros(batch_size, num_heads, key_dim, value.shape[-1], dtype, query.device)
    else:
        _check_state(state, query, value)
    with torch.autocast(query.device.type, enabled=False):
        options = FlowOptions(feature_map, competition_clamp, eps, chunk_size)
        output, state = causal_flow_attention(query, key, value, mask, state, options)
    return (output, state) if return_state else output


def flow_attention_step(
    query: Tensor,  # [B, H, 1, D]
    key: Tensor,  # [B, H, 1, D]
    value: Tensor,  # [B, H, 1, M]
    state: FlowState,
    *,
    mask: Tensor | None = None,  # [B, 1] bool, True = keep
    feature_map: str = "sigmoid",
    competition_clamp: float = 1.0,
    eps: float = 1e-6,
) -> tuple[Tensor, FlowState]:
    """One token of causal flow attention: output [B, H, 1, M] and the next state, at a cost without the context's length.

    Raises:
        ValueError: more than one token, and as `flow_attention`.
    """
    if query.shape[2] != 1:
        raise ValueError(f"`flow_attention_step` takes one token at a time, got {query.shape[2]}.")
    options = {"feature_map": feature_map, "competition_clamp": competition_clamp, "eps": eps}
    return flow_attention(query, key, value, causal=True, key_mask=mask, state=state, return_state=True, **options)


def naive_flow_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool = False,
    key_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
    feature_map: str = "sigmoid",
    competition_clamp: float = 1.0,
    eps: float = 1e-6,
) -> Tensor:
    """The definition, written plainly with the L x S matrix of flows; every other form is tested against it."""
    _check_inputs(query, key, value, causal, key_mask, query_mask)
    _check_options(feature_map, competition_clamp, eps)
    if causal:
        key_mask = query_mask = _common_mask(key_mask, query_mask)
    (batch_size, _, sinks, _), sources = query.shape, key.shape[2]
    keep_key = _keep(key_mask, batch_size, sources, query)  # [B, 1, S]
    keep_query = _keep(query_mask, batch_size, sinks, query)  # [B, 1, L]
    phi_q = FlowOptions(feature_map).features(query).masked_fill(~keep_query[..., None], 0)
    phi_k = FlowOptions(feature_map).features(key).masked_fill(~keep_key[..., None], 0)

    # each sum over keys runs over the columns of a row of `reach`, each sum over queries over the rows of a column
    reach = query.new_ones(sinks, sources)
    reach = reach.tril() if causal else reach
    back = reach.T if not causal else reach
    num_queries = (keep_query.to(query.dtype) @ back.T).clamp(min=1)  # [B, 1, S]
    num_keys = (keep_key.to(query.dtype) @ reach.T).clamp(min=1)  # [B, 1, L]

    incoming = ((phi_q + eps) * (reach @ phi_k + eps)).sum(-1)
    outgoing = ((phi_k + eps) * (back @ phi_q + eps)).sum(-1)
    scale_in, scale_out = (num_keys, num_queries) if causal else (1, 1)
    sources_left = phi_k * (scale_out / outgoing)[..., None]
    sinks_left = phi_q * (scale_in / incoming)[..., None]
    conserved_in = ((phi_q + eps) * (reach @ sources_left + eps)).sum(-1) / scale_in
    conserved_out = ((phi_k + eps) * (back @ sinks_left + eps)).sum(-1) / scale_out

    strength = conserved_out.clamp(-competition_clamp, competition_clamp).exp() * keep_key
    rivals = strength @ (reach.T if causal else reach.new_ones(sources, sources))
    count = num_keys if causal else num_keys[..., :1]
    competition = strength * count / rivals.masked_fill(rivals == 0, 1)
    competed = (value * competition[..., None]).masked_fill(~keep_key[..., None], 0)
    aggregated = ((phi_q / incoming[..., None]) @ phi_k.mT * reach) @ competed
    ratio = 1 if causal else num_queries[..., :1] / num_keys[..., :1]
    return torch.sigmoid(conserved_in * ratio)[..., None] * aggregated


def _compute_dtype(query: Tensor, value: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(query.dtype, value.dtype), torch.float32)


def _keep(mask: Tensor | None, batch_size: int, length: int, like: Tensor) -> Tensor:
    if mask is None:
        return torch.ones(batch_size, 1, length, dtype=torch.bool, device=like.device)
    return mask[:, None]


def _common_mask(key_mask: Tensor | None, query_mask: Tensor | None) -> Tensor | None:
    """The one mask of the causal form, where keys and queries are the same tokens."""
    if key_mask is None or query_mask is None or key_mask is query_mask:
        return query_mask if key_mask is None else key_mask
    # comparing values would break a compiled graph: there the tokens both masks keep count
    if torch.compiler.is_compiling():
        return key_mask & query_mask
    if not torch.equal(key_mask, query_mask):
        raise ValueError("`key_mask` and `query_mask` should be the same tokens with `causal=True`, got two masks.")
    return key_mask


def _check_inputs(query, key, value, causal, key_mask, query_mask) -> None:
    shapes = f"got query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}."
    if not query.dim() == key.dim() == value.dim() == 4:
        raise ValueError(f"`query`, `key` and `value` should be [batch, heads, length, dim], {shapes}")
    if not query.shape[:2] == key.shape[:2] == value.shape[:2]:
        raise ValueError(f"Batch and head counts of query, key and value should be equal, {shapes}")
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"Head dimensions of `query` and `key` should be equal, {shapes}")
    if key.shape[2] != value.shape[2]:
        raise ValueError(f"`key` and `value` should have the same length, {shapes}")
    if query.shape[2] == 0 or key.shape[2] == 0:
        raise ValueError(f"Flow attention needs at least one token, {shapes}")
    if causal and query.shape[2] != key.shape[2]:
        raise ValueError(
            f"Causal flow attention needs as many queries as keys, {shapes} It cannot read a key-value cache, "
            "which lacks the past queries: pass `use_cache=False`, or continue from a FlowState."
        )
    for name, mask, length in (("key_mask", key_mask, key.shape[2]), ("query_mask", query_mask, query.shape[2])):
        if mask is None:
            continue
        if mask.shape != (query.shape[0], length):
            raise ValueError(f"`{name}` should be {(query.shape[0], length)}, got {tuple(mask.shape)}.")
        if mask.dtype != torch.bool:
            raise ValueError(f"`{name}` should be boolean with True = keep, got {mask.dtype}.")


def _check_options(feature_map: str, competition_clamp: float, eps: float, chunk_size: int = 1) -> None:
    if feature_map not in FEATURE_MAPS:
        raise ValueError(f"`feature_map` should be one of {', '.join(FEATURE_MAPS)}, got {feature_map!r}.")
    if competition_clamp is None or not 0 < competition_clamp <= MAX_COMPETITION_CLAMP:
        raise ValueError(f"`competition_clamp` should be in (0, {MAX_COMPETITION_CLAMP}], got {competition_clamp}.")
    if not eps > 0:
        raise ValueError(f"`eps` should be positive, got {eps}.")
    if not chunk_size >= 1:
        raise ValueError(f"`chunk_size` should be at least 1, got {chunk_size}.")


def _check_state(state: FlowState, query: Tensor, value: Tensor) -> None:
    expected = (*query.shape[:2], query.shape[-1], value.shape[-1])
    if tuple(state.memory.shape) != expected:
        raise ValueError(f"`state` should have a memory of {expected}, got {tuple(state.memory.shape)}.")
