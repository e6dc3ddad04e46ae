"""Bidirectional flow attention in time and memory linear in L + S; no L x S and no L x D x M tensor exists.

With a = phi(q), b = phi(k), sums over all sinks i or all sources j:

    I_i  = (a_i + eps) . (sum b_j + eps)                O_j  = (b_j + eps) . (sum a_i + eps)
    I^_i = (a_i + eps) . (sum b_j / O_j + eps)          O^_j = (b_j + eps) . (sum a_i / I_i + eps)
    p_j  = softmax_j(clamp(O^))                         w_j  = v_j S p_j
    R_i  = sigmoid(I^_i L / S) / I_i * a_i (sum b_j^T w_j)

In bfloat16 on a GPU nothing as large as q, k and v is ever held in float32: the two products b^T w and a (b^T w) are
those of bfloat16, and every sum over tokens or features is taken in float32. float16 could not hold b^T w.

Heads do not meet, so rows and heads go in blocks that fit the cache, in the backward pass too: it keeps the inputs and
recomputes the rest. Fresh large tensors cost a CPU more in page faults than in arithmetic.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .flow_options import FlowOptions, nonzero
from .flow_tracing import in_full_precision, is_traced, needs_plain_backward

# elements of one [b, h, L, D] temporary: 1 MiB in float32 stays in a CPU's cache; a GPU takes all heads at once
CPU_BLOCK_ELEMENTS = 2**18
GPU_BLOCK_ELEMENTS = 2**26
# where bfloat16 stays as it is: a CPU computes faster in float32, which its blocks hold in the cache
BFLOAT16_DEVICES = ("cuda",)


class _Flows(NamedTuple):
    """What the backward pass needs of a block."""

    phi_q: Tensor  # [b, h, L, D] a
    phi_k: Tensor  # [b, h, S, D] b
    incoming: Tensor  # [b, h, L]
    outgoing: Tensor  # [b, h, S]
    allocation: Tensor  # [b, h, L] sigmoid(I^ L / S)
    sent: Tensor  # [b, h, S] O^
    probability: Tensor  # [b, h, S] p
    share: Tensor  # [b, h, S] S p
    sources: tuple[Tensor, Tensor, Tensor, Tensor]  # [b, h, 1, D] the second factors of I, O, I^, O^, eps included
    competed: Tensor  # [b, h, S, M] w
    memory: Tensor  # [b, h, D, M] sum b_j^T w_j
    ratio: Tensor | float  # L / S


def bidirectional_flow_attention(
    query: Tensor,  # [B, H, L, D]
    key: Tensor,  # [B, H, S, D]
    value: Tensor,  # [B, H, S, M]
    key_mask: Tensor | None,  # [B, S] bool
    query_mask: Tensor | None,  # [B, L] bool
    options: FlowOptions,
) -> Tensor:
    """Output [B, H, L, M] in the dtype of `value`; sums, flows and competition in float32 at least."""
    if is_traced():
        return _forward(query, key, value, key_mask, query_mask, options)[0].to(value.dtype)
    return _BidirectionalFlow.apply(query, key, value, key_mask, query_mask, options)


def _blocks(query: Tensor, key: Tensor, value: Tensor) -> Iterator[tuple[slice, slice]]:
    """(rows, heads) of each block: whole rows while they fit, else heads of one row, at least one."""
    batch_size, num_heads = query.shape[:2]
    budget = CPU_BLOCK_ELEMENTS if query.device.type == "cpu" else GPU_BLOCK_ELEMENTS
    per_head = max(query.shape[2], key.shape[2]) * max(query.shape[3], value.shape[3])
    heads = min(max(budget // per_head, 1), num_heads)
    rows = max(budget // (per_head * num_heads), 1)
    for row in range(0, batch_size, rows):
        for head in range(0, num_heads, heads):
            yield slice(row, row + rows), slice(head, head + heads)


def _weigh(weights: Tensor, matrix: Tensor, eps: float = 0.0) -> Tensor:
    """sum_i weights_i (matrix_i + eps): [..., L] x [..., L, D] -> [..., 1, D]."""
    if matrix.dtype == weights.dtype:
        total = weights.unsqueeze(-2) @ matrix
    else:
        total = (weights[..., None].to(matrix.dtype) * matrix).sum(-2, keepdim=True, dtype=weights.dtype)
    return total + eps * weights.sum(-1)[..., None, None] if eps else total


def _project(features: Tensor, vector: Tensor, eps: float = 0.0) -> Tensor:
    """(features_i + eps) . vector: [..., L, D] x [..., 1, D] -> [..., L]."""
    if features.dtype == vector.dtype:
        product = (vector @ features.mT).squeeze(-2)
    else:
        product = (features * vector.to(features.dtype)).sum(-1, dtype=vector.dtype)
    return product + eps * vector.sum(-1) if eps else product


def _forward(query, key, value, key_mask, query_mask, options: FlowOptions) -> tuple[Tensor, _Flows]:
    dtype, eps = torch.promote_types(value.dtype, torch.float32), options.eps
    # of the large tensors; `dtype` is that of sums
    held = value.dtype if value.dtype == torch.bfloat16 and value.device.type in BFLOAT16_DEVICES else dtype
    a, b, value = options.features(query.to(held)), options.features(key.to(held)), value.to(held)
    num_queries, num_keys, keep = query.shape[2], key.shape[2], None
    if query_mask is not None:
        a = a.masked_fill(~query_mask[:, None, :, None], 0)
        num_queries = query_mask.sum(-1)[:, None, None].clamp(min=1).to(dtype)
    if key_mask is not None:
        keep = key_mask[:, None]
        # filled, not multiplied: padding may hold anything, NaN included
        b, value = (x.masked_fill(~keep[..., None], 0) for x in (b, value))
        num_keys = keep.sum(-1, keepdim=True).clamp(min=1).to(dtype)
    total_k, total_q = (x.sum(-2, keepdim=True, dtype=dtype) + eps for x in (b, a))
    incoming, outgoing = _project(a, total_k, eps), _project(b, total_q, eps)
    flow_k, flow_q = _weigh(outgoing.reciprocal(), b) + eps, _weigh(incoming.reciprocal(), a) + eps
    ratio = num_queries / num_keys
    allocation, sent = torch.sigmoid(_project(a, flow_k, eps) * ratio), _project(b, flow_q, eps)

    strength = options.strength(sent, keep)
    probability = strength / nonzero(strength.sum(-1, keepdim=True))
    share = probability * num_keys
    competed = value * share[..., None].to(held)
    memory = b.mT @ competed
    output = (a @ memory) * (allocation / incoming)[..., None].to(held)
    sources = total_k, total_q, flow_k, flow_q
    flows = incoming, outgoing, allocation, sent, probability, share, sources, competed, memory, ratio
    return output, _Flows(a, b, *flows)


def _backward(grad_output: Tensor, output: Tensor, flows: _Flows, options: FlowOptions):
    a, b, incoming, outgoing, allocation, sent, probability, share, sources, competed, memory, ratio = flows
    (total_k, total_q, flow_k, flow_q), eps = sources, options.eps
    held, dtype = a.dtype, share.dtype
    # aggregation, and competition as a softmax: grad_share is d / d log share
    grad_sum = grad_output * (allocation / incoming)[..., None].to(held)
    grad_log = (grad_output * output).sum(-1, dtype=dtype)
    grad_memory = a.mT @ grad_sum
    grad_competed = b @ grad_memory
    grad_share = (competed * grad_competed).sum(-1, dtype=dtype)
    grad_sent = options.strength_gradient(grad_share - probability * grad_share.sum(-1, keepdim=True), sent)
    grad_kept = grad_log * (1 - allocation) * ratio
    # conserved flows, then plain ones
    r, s = incoming.reciprocal(), outgoing.reciprocal()
    grad_flow_q, grad_flow_k = _weigh(grad_sent, b, eps), _weigh(grad_kept, a, eps)
    grad_in = -(_project(a, grad_flow_q) * r + grad_log) * r
    grad_out = -_project(b, grad_flow_k) * s * s
    grad_total_k, grad_total_q = _weigh(grad_in, a, eps), _weigh(grad_out, b, eps)

    vectors_q, vectors_k = [flow_k, total_k, grad_flow_q, grad_total_q], [flow_q, total_q, grad_flow_k, grad_total_k]
    grad_a = _combine([grad_kept, grad_in, r, torch.ones_like(r)], vectors_q, grad_sum, memory)
    grad_b = _combine([grad_sent, grad_out, s, torch.ones_like(s)], vectors_k, competed, grad_memory)
    grad_value = grad_competed * share[..., None].to(held)
    return options.feature_gradient(grad_a, a), options.feature_gradient(grad_b, b), grad_value


def _combine(weights: list[Tensor], vectors: list[Tensor], left: Tensor, right: Tensor) -> Tensor:
    """sum_t weights_t (outer) vectors_t + left right^T."""
    total, outer = left @ right.mT, (torch.stack(weights, -1), torch.cat(vectors, -2))
    total.flatten(0, 1).baddbmm_(*(x.flatten(0, 1).to(total.dtype) for x in outer))
    return total


class _BidirectionalFlow(torch.autograd.Function):
    """Block after block, each recomputed in the backward pass."""

    @staticmethod
    def forward(query, key, value, key_mask, query_mask, options):
        if query.shape[3] == value.shape[3]:
            # laid out in memory as the queries are: models hold them token by token
            output = torch.empty_like(query, dtype=value.dtype)
        else:
            output = value.new_empty(*query.shape[:3], value.shape[3])
        for block in _blocks(query, key, value):
            output[block] = _forward(*_select(block, query, key, value, key_mask, query_mask), options)[0]
        return output

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.options = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @in_full_precision
    def backward(ctx, grad_output):
        tensors, options = ctx.saved_tensors, ctx.options
        if needs_plain_backward(grad_output):
            return _second_order(tensors, options, grad_output)
        grads = [torch.empty_like(x) for x in tensors[:3]]
        for block in _blocks(*tensors[:3]):
            output, flows = _forward(*_select(block, *tensors), options)
            for grad, result in zip(grads, _backward(grad_output[block].to(output.dtype), output, flows, options)):
                grad[block] = result
        return *grads, None, None, None


def _select(block, query, key, value, key_mask, query_mask):
    masks = (None if mask is None else mask[block[0]] for mask in (key_mask, query_mask))
    return query[block], key[block], value[block], *masks


def _second_order(tensors, options: FlowOptions, grad_output: Tensor):
    """The gradients as functions of the inputs, for `create_graph=True`, batched gradients and torch.func."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        output = _forward(*tensors, options)[0].to(grad_output.dtype)
        wanted = [x for x in tensors[:3] if x.requires_grad]
        found = iter(torch.autograd.grad(output, wanted, grad_output, create_graph=create_graph))
    return *(next(found) if x.requires_grad else None for x in tensors[:3]), None, None, None
