"""Flow attention: attention in linear time by conservation of flow between sources (keys) and sinks (queries).

    incoming   I_i  = phi(q_i) . sum_j phi(k_j)           outgoing   O_j  = phi(k_j) . sum_i phi(q_i)
    conserved  I^_i = phi(q_i) . sum_j phi(k_j) / O_j     conserved  O^_j = phi(k_j) . sum_i phi(q_i) / I_i
    competition  V^_j = softmax_j(clamp(O^))_j * S * v_j
    aggregation  A_i  = (phi(q_i) / I_i) (sum_j phi(k_j)^T V^_j)
    allocation   R_i  = sigmoid(I^_i * L / S) A_i

with eps added to both factors of every product that makes I, O, I^ and O^. In the causal form every sum runs over the
positions up to i; with n_i = i + 1, the 1/I and 1/O inside I^ and O^ are multiplied by n and I^ and O^ divided by it,
the competition becomes n_j exp(O^_j) / sum_{t <= j} exp(O^_t), and L/S is 1: a recurrence over `FlowState`. Masked
tokens have phi = 0 and no share of the competition, and L, S and n count the real tokens of each row.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258; defaults are those of the authors' module.
Their code for the Long Range Arena takes the softmax of the competition over the heads of each token: that is not
reproduced here.
"""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from transformers.utils.generic import maybe_autocast

from .flow_attention_bidirectional import bidirectional_flow_attention
from .flow_attention_causal import causal_flow_attention, causal_flow_step
from .flow_kernels import kernel_flow_attention, runs_in_kernels
from .flow_options import FlowOptions, nonzero
from .flow_packing import Packing, packed_flow_attention
from .flow_state import FlowState
from .flow_tracing import is_traced


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
    chunk_size: int = 64,
    cu_seqlens: Tensor | Packing | None = None,  # [N + 1] int, 0 first and L last
    kernel: str = "auto",
) -> Tensor | tuple[Tensor, FlowState]:
    """Flow attention [B, H, L, M] in time and memory linear in L + S; float32 inside for half-precision inputs.

    The causal form needs L = S and takes its mask as either argument, since both are the same tokens. It continues
    from `state` and, with `return_state`, also returns the state it ends in; gradients flow through both.
    Bidirectional self-attention over padded rows needs both masks. Masked queries give 0. Second derivatives exist.

    Args:
        feature_map: phi, "sigmoid", "elu" (elu + 1), "relu" or "shifted_relu" (relu + 1e-6).
        competition_clamp: bound of |O^| in the competition. O^ averages 1 over the sources of the bidirectional form,
            so the default of 1, which the authors' module and ImageNet code have, cuts the sources above average
            to one strength, with their gradients: outputs differ by 5 to 59 % from the values their other codes
            have (10 for trajectories, 5 for language modelling, none for time series and the Long Range Arena, where
            30 is as good as none). It also keeps the competition even, and on a copy task 1 learned fastest.
        chunk_size: tokens whose pairwise products are held at a time in the causal form; changes speed alone.
        cu_seqlens: bounds of N documents packed into the one row (B = 1), as kernels of padding-free attention take
            them: all sums, and the state, begin anew with each document, wherever it begins. `state` and the state
            returned then have N rows, one a document. A `Packing` serves many layers.
        kernel: of the causal form, "torch" (PyTorch's operations), "fla" (the Triton kernels of flash-linear-attention
            on CUDA) or "auto": the latter where `fla-core` is installed and the tensors are on CUDA.

    Raises:
        ValueError: shapes that do not fit, an empty sequence, a mask that is not boolean or has the wrong shape,
            causal with L != S or with two different masks, a state without causal, an unknown feature map, a setting
            out of range, bounds that do not rise from 0 to the length of one row, an unknown kernel or one that cannot
            run here.
    """
    _check_inputs(query, key, value, causal, key_mask, query_mask)
    options = FlowOptions(feature_map, competition_clamp, eps, chunk_size).check()
    if not causal and (state is not None or return_state):
        raise ValueError("`state` and `return_state` need `causal=True`: the bidirectional form has no state.")
    in_kernels = runs_in_kernels(kernel, query) and causal
    run = partial(_causal, in_kernels) if causal else _bidirectional
    # the sums need full precision: autocast would take the products inside to half
    with maybe_autocast(query.device.type, enabled=False):
        if cu_seqlens is None:
            output, state = run(query, key, value, key_mask, query_mask, state, options)
        else:
            packing = _packing_of(cu_seqlens, query, key, key_mask, query_mask)
            attend = partial(_attend_rows, run, options)
            output, state = packed_flow_attention(query, key, value, packing, attend, state)
    return (output, state) if return_state else output


def _causal(in_kernels, query, key, value, key_mask, query_mask, state, options) -> tuple[Tensor, FlowState]:
    mask = _common_mask(key_mask, query_mask)
    run = causal_flow_attention if state is None or query.shape[2] > 1 else causal_flow_step
    run = kernel_flow_attention if in_kernels else run
    state = _first_state(query, value) if state is None else _check_state(state, query, value)
    return run(query, key, value, mask, state, options)


def _bidirectional(query, key, value, key_mask, query_mask, state, options) -> tuple[Tensor, None]:
    return bidirectional_flow_attention(query, key, value, key_mask, query_mask, options), None


def _attend_rows(run, options, query, key, value, mask, state) -> tuple[Tensor, FlowState | None]:
    return run(query, key, value, mask, mask, state, options)


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
    """One token of causal flow attention: output [B, H, 1, M] and the next state, at a cost free of the context.

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
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """The definition, written plainly with the L x S matrix of flows; every other form is tested against it."""
    _check_inputs(query, key, value, causal, key_mask, query_mask)
    if cu_seqlens is not None:
        _packing_of(cu_seqlens, query, key, key_mask, query_mask)
        settings = {"feature_map": feature_map, "competition_clamp": competition_clamp, "eps": eps}
        documents = [slice(*bounds) for bounds in pairwise(cu_seqlens.tolist())]
        outputs = [
            naive_flow_attention(
                *(x[:, :, part] for x in (query, key, value)),
                causal=causal,
                key_mask=None if key_mask is None else key_mask[:, part],
                query_mask=None if query_mask is None else query_mask[:, part],
                **settings,
            )
            for part in documents
        ]
        return torch.cat(outputs, dim=2)
    options = FlowOptions(feature_map, competition_clamp, eps).check()
    if causal:
        key_mask = query_mask = _common_mask(key_mask, query_mask)
    keep_q, keep_k = _column(query_mask, query), _column(key_mask, key)
    phi_q = options.features(query).masked_fill(~keep_q, 0)
    phi_k = options.features(key).masked_fill(~keep_k, 0)

    def total(terms: Tensor) -> Tensor:
        return terms.cumsum(-2) if causal else terms.sum(-2, keepdim=True)

    def flow(reader: Tensor, writer: Tensor) -> Tensor:
        return ((reader + eps) * (total(writer) + eps)).sum(-1, keepdim=True)

    num_queries, num_keys = (total(keep).clamp(min=1).to(query.dtype) for keep in (keep_q, keep_k))
    scale, ratio = (num_keys, 1) if causal else (1, num_queries / num_keys)
    incoming, outgoing = flow(phi_q, phi_k), flow(phi_k, phi_q)
    conserved_in = flow(phi_q, phi_k * scale / outgoing) / scale
    conserved_out = flow(phi_k, phi_q * scale / incoming) / scale
    strength = conserved_out.clamp(-competition_clamp, competition_clamp).exp() * keep_k
    competition = strength * num_keys / nonzero(total(strength))
    competed = (value * competition).masked_fill(~keep_k, 0)
    flows = phi_q @ phi_k.mT
    aggregated = (flows.tril() if causal else flows) / incoming @ competed
    return torch.sigmoid(conserved_in * ratio) * aggregated


def _column(mask: Tensor | None, tokens: Tensor) -> Tensor:
    """The mask as [B, 1, L, 1], all True when there is none."""
    if mask is None:
        return torch.ones(tokens.shape[0], 1, tokens.shape[2], 1, dtype=torch.bool, device=tokens.device)
    return mask[:, None, :, None]


def _common_mask(key_mask: Tensor | None, query_mask: Tensor | None) -> Tensor | None:
    """The one mask of the causal form, where keys and queries are the same tokens."""
    if key_mask is None or query_mask is None or key_mask is query_mask:
        return query_mask if key_mask is None else key_mask
    # values cannot be compared there: the tokens both masks keep count
    if is_traced():
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
    if 0 in query.shape or 0 in value.shape:
        raise ValueError(f"Flow attention needs at least one row, head, token and dimension, {shapes}")
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


def _packing_of(cu_seqlens, query: Tensor, key: Tensor, key_mask, query_mask) -> Packing:
    """Where each document goes; keys and queries are the same tokens, under one mask."""
    if isinstance(cu_seqlens, Packing):
        return cu_seqlens
    length = query.shape[2]
    if query.shape[0] != 1 or key.shape[2] != length:
        raise ValueError(
            f"`cu_seqlens` needs one row (batch 1) of as many queries as keys, got query {tuple(query.shape)}, key "
            f"{tuple(key.shape)}: lay the rows of a batch behind one another."
        )
    bounds = cu_seqlens.tolist() if cu_seqlens.dim() == 1 and not cu_seqlens.is_floating_point() else []
    lengths = [stop - start for start, stop in pairwise(bounds)]
    if not lengths or min(lengths) < 1 or bounds[0] != 0 or bounds[-1] != length:
        raise ValueError(f"`cu_seqlens` should be whole numbers that rise from 0 to {length}, got {cu_seqlens}.")
    mask = _common_mask(key_mask, query_mask)
    return Packing.of_lengths(lengths, None if mask is None else mask[0], query.device)


def _first_state(query: Tensor, value: Tensor) -> FlowState:
    batch_size, num_heads, _, key_dim = query.shape
    dtype = torch.promote_types(value.dtype, torch.float32)
    return FlowState.zeros(batch_size, num_heads, key_dim, value.shape[-1], dtype, query.device)


def _check_state(state: FlowState, query: Tensor, value: Tensor) -> FlowState:
    expected = (*query.shape[:2], query.shape[-1], value.shape[-1])
    if tuple(state.memory.shape) != expected:
        raise ValueError(f"`state` should have a memory of {expected}, got {tuple(state.memory.shape)}.")
    return state
