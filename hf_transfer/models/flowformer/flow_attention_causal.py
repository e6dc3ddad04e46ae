"""Causal flow attention, chunk by chunk in linear time, with a backward pass that recomputes instead of storing.

With a = phi(q), b = phi(k), n_i the real tokens up to i, and every sum over positions up to i (or j):

    I_i  = (a_i + eps) . (sum b_j + eps)                    O_j  = (b_j + eps) . (sum a_i + eps)
    I^_i = (a_i + eps) . (sum b_j n_j / O_j + eps) / n_i    O^_j = (b_j + eps) . (sum a_i n_i / I_i + eps) / n_j
    e_j = exp(clamp(O^_j))    Z_j = sum e_t    w_j = v_j e_j n_j / Z_j    R_i = sigmoid(I^_i) / I_i * a_i (sum b_j^T w_j)

A chunk's products a_i . b_j serve every one of those sums: the lower triangle for sums over keys, the upper one for sums over
queries; what lies before the chunk comes from prefix sums over chunks. A segment is as many chunks as fit the cache: they
go through batched matrix products together, and segments follow one another through the state. So no temporary grows with
the length, which matters on a CPU, where fresh large tensors cost more in page faults than in arithmetic.

The gradient with respect to each a_i . b_j is again one number per pair of positions, so the backward pass is two products
with that matrix. It keeps the inputs, the output, five numbers per position, four vectors per chunk and one matrix per
segment, and recomputes the rest.

Shapes: G = B * H, X = G * N for the N chunks of C tokens in a segment.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .flow_options import FlowOptions, nonzero
from .flow_state import FlowState

# elements of one [B, H, segment, D] temporary: 1 MiB in float32 stays in a CPU's cache; a GPU wants few large launches
CPU_SEGMENT_ELEMENTS = 2**18
GPU_SEGMENT_ELEMENTS = 2**24
# up to here prefix sums over chunks are a product with a triangular matrix, which beats a strided cumsum
MAX_TRIANGULAR_CHUNKS = 64


class _Segment(NamedTuple):
    """What both passes need of a segment."""

    phi_q: Tensor  # [X, C, D] a
    phi_k: Tensor  # [X, C, D] b
    total_q: Tensor  # [X, C] sum over D of a
    total_k: Tensor  # [X, C] sum over D of b
    lower: Tensor  # [X, C, C] a_i . b_j for j <= i, else 0
    upper: Tensor  # [X, C, C] a_i . b_j for i <= j, else 0
    value: Tensor  # [B, H, N * C, M], a view where it can be
    n: Tensor  # [X, C] real tokens so far, at least 1
    keep: Tensor | None  # [X, C] bool


def causal_flow_attention(
    query: Tensor,  # [B, H, L, D]
    key: Tensor,  # [B, H, L, D]
    value: Tensor,  # [B, H, L, M]
    mask: Tensor | None,  # [B, L] bool
    state: FlowState,
    options: FlowOptions,
) -> tuple[Tensor, FlowState]:
    """Output [B, H, L, M] in the dtype of `value` and the state after the last token; differentiable in both."""
    if mask is None:
        counts = torch.arange(1, query.shape[2] + 1, device=query.device)[None]
    else:
        counts = mask.cumsum(-1)
    counts = state.num_tokens[:, None] + counts
    positions = counts.clamp(min=1).to(state.memory.dtype)
    run = _differentiable if torch.compiler.is_compiling() else _CausalFlow.apply
    output, *tensors = run(query, key, value, mask, positions, options, *state[:6])[:7]
    return output, FlowState(*tensors, counts[:, -1])


def _segments(query: Tensor, value: Tensor, chunk_size: int) -> list[tuple[slice, int]]:
    """(positions, chunk size) of each segment: whole chunks as the budget allows, then the rest as one short chunk."""
    batch_size, num_heads, length, key_dim = query.shape
    whole = length - length % chunk_size
    # a compiler unrolls loops and plans memory itself: one segment
    segment = whole
    if not torch.compiler.is_compiling():
        budget = CPU_SEGMENT_ELEMENTS if query.device.type == "cpu" else GPU_SEGMENT_ELEMENTS
        chunks = budget // (batch_size * num_heads * max(key_dim, value.shape[-1]) * chunk_size)
        segment = min(max(chunks, 1), MAX_TRIANGULAR_CHUNKS) * chunk_size
    parts = []
    if whole > 0:
        parts = [(slice(start, min(start + segment, whole)), chunk_size) for start in range(0, whole, segment)]
    if whole < length:
        parts.append((slice(whole, length), length - whole))
    return parts


def _prepare(query, key, value, mask, positions, part: slice, chunk: int, options: FlowOptions) -> _Segment:
    batch_size, num_heads, length, _ = query[:, :, part].shape
    query, key, value = (x[:, :, part].to(positions.dtype) for x in (query, key, value))
    a, b, keep = options.features(query), options.features(key), None
    if mask is not None:
        drop = ~mask[:, None, part, None]
        a, b, value = (x.masked_fill(drop, 0) for x in (a, b, value))
        keep = mask[:, None, part].expand(-1, num_heads, -1).reshape(-1, chunk)
    n = positions[:, None, part].expand(-1, num_heads, -1).reshape(-1, chunk)
    a, b = a.reshape(-1, chunk, a.shape[-1]), b.reshape(-1, chunk, b.shape[-1])
    scores = torch.bmm(a, b.mT)
    upper = scores * scores.new_ones(chunk, chunk).triu()
    return _Segment(a, b, a.sum(-1), b.sum(-1), scores.tril_(), upper, value, n, keep)


def _rows(weights: Tensor, matrix: Tensor) -> Tensor:
    """sum_i weights_i matrix_i: [X, C] x [X, C, K] -> [X, K]; a row times a matrix is the fast way round in batches."""
    return torch.bmm(weights.unsqueeze(1), matrix).squeeze(1)


def _weighted(tensor: Tensor, weights: Tensor) -> Tensor:
    """[B, H, N * C, M] times one weight per position [X, C] -> [X, C, M]."""
    product = tensor * weights.view(*tensor.shape[:3], 1)
    return product.reshape(*weights.shape, tensor.shape[-1])


def _prefix(carry: Tensor, sums: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """Sums over the chunks before each chunk (after it, when reversed) [X, ...] and over all [G, ...], on top of `carry`."""
    sums = sums.unflatten(0, (carry.shape[0], -1))
    chunks = sums.shape[1]
    if chunks == 1:
        starts = carry.unsqueeze(1)
    elif chunks <= MAX_TRIANGULAR_CHUNKS:
        ones = sums.new_ones(chunks, chunks)
        before = ones.triu(1) if reverse else ones.tril(-1)
        starts = (before @ sums.flatten(2)).view_as(sums) + carry.unsqueeze(1)
    else:
        ordered = sums.flip(1) if reverse else sums
        starts = torch.cat([carry.unsqueeze(1), ordered[:, :-1]], 1).cumsum(1)
        starts = starts.flip(1) if reverse else starts
    last = 0 if reverse else -1
    return starts.flatten(0, 1), starts[:, last] + sums[:, last]


def _sum_from(weights: Tensor) -> Tensor:
    """sum_{i >= j} weights_i along the last dimension."""
    return weights.flip(-1).cumsum(-1).flip(-1)


def _flow(reader, writer, writer_total, weights, pairs, carry, eps):
    """(reader_i + eps) . (carry + sum_{j <= i} weights_j writer_j + eps), with pairs[j, i] = writer_j . reader_i for j <= i.

    Returns it [X, C] with the second factor before each chunk [X, D], eps included, and the next carry [G, D].
    """
    starts, carry = _prefix(carry, _rows(weights, writer))
    starts = starts + eps
    small = (weights * writer_total).cumsum(-1) + starts.sum(-1, keepdim=True)
    return _rows(weights, pairs) + _rows(starts, reader.mT) + eps * small, starts, carry


def _forward(segment: _Segment, tensors: Sequence[Tensor], options: FlowOptions):
    """The output's two factors [X, C, M] and [X, C], the next state, and what the backward pass reads again."""
    a, b, total_q, total_k, lower, upper, value, n, keep = segment
    key_sum, query_sum, key_flow, query_flow, competition, memory = tensors
    eps, ones = options.eps, torch.ones_like(n)
    incoming, key_starts, key_sum = _flow(a, b, total_k, ones, lower.mT, key_sum, eps)
    outgoing, query_starts, query_sum = _flow(b, a, total_q, ones, upper, query_sum, eps)
    kept, key_flow_starts, key_flow = _flow(a, b, total_k, n / outgoing, lower.mT, key_flow, eps)
    sent, query_flow_starts, query_flow = _flow(b, a, total_q, n / incoming, upper, query_flow, eps)
    allocation, sent = torch.sigmoid(kept / n), sent / n

    strength = options.strength(sent, keep)
    rivals = competition[:, None] + strength.view(competition.shape[0], -1).cumsum(-1)
    competition, rivals = rivals[:, -1], rivals.view_as(strength)
    competed = _weighted(value, strength * n / nonzero(rivals))
    starts, memory = _prefix(memory, torch.bmm(b.mT, competed))
    aggregated = torch.bmm(a, starts).baddbmm_(lower, competed)
    flows = torch.stack([incoming, outgoing, allocation, sent, rivals])
    vectors = torch.stack([key_starts, query_starts, key_flow_starts, query_flow_starts])
    state = (key_sum, query_sum, key_flow, query_flow, competition, memory)
    return aggregated, allocation / incoming, state, flows, vectors


def _differentiable(query, key, value, mask, positions, options, *tensors):
    """The forward pass in operations autograd follows, for graph compilers and for second derivatives."""
    outputs, shapes = [], [x.shape for x in tensors]
    tensors = [x.flatten(0, 1) for x in tensors]
    for part, chunk in _segments(query, value, options.chunk_size):
        segment = _prepare(query, key, value, mask, positions, part, chunk, options)
        aggregated, scale, tensors, _, _ = _forward(segment, tensors, options)
        outputs.append((aggregated * scale[..., None]).view_as(segment.value).to(value.dtype))
    output = torch.cat(outputs, 2) if len(outputs) > 1 else outputs[0]
    return output, *(x.view(shape) for x, shape in zip(tensors, shapes))


class _CausalFlow(torch.autograd.Function):
    """Segment after segment, each recomputed in the backward pass from the state it started in."""

    @staticmethod
    def forward(query, key, value, mask, positions, options, *tensors):
        shapes, tensors = [x.shape for x in tensors], [x.flatten(0, 1) for x in tensors]
        output, flows = torch.empty_like(value), positions.new_empty(5, tensors[0].shape[0], query.shape[2])
        vectors, memories = [], []
        for part, chunk in _segments(query, value, options.chunk_size):
            memories.append(tensors[-1])
            segment = _prepare(query, key, value, mask, positions, part, chunk, options)
            aggregated, scale, tensors, segment_flows, segment_vectors = _forward(segment, tensors, options)
            shape = segment.value.shape
            torch.mul(aggregated.view(shape), scale.view(*shape[:3], 1), out=output[:, :, part])
            flows[:, :, part] = segment_flows.view(*flows.shape[:2], -1)
            vectors.append(segment_vectors.unflatten(1, (flows.shape[1], -1)))
        tensors = (x.view(shape) for x, shape in zip(tensors, shapes))
        return output, *tensors, flows, torch.cat(vectors, 2), torch.stack(memories)

    @staticmethod
    def setup_context(ctx, inputs, output):
        query, key, value, mask, positions, ctx.options, *tensors = inputs
        result, *_, flows, vectors, memories = output
        ctx.mark_non_differentiable(flows, vectors, memories)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, key, value, mask, positions, result, flows, vectors, memories, *tensors)

    @staticmethod
    def backward(ctx, *gradients):
        query, key, value, mask, positions, output, flows, vectors, memories, *tensors = ctx.saved_tensors
        options, gradients = ctx.options, gradients[:7]
        if torch.is_grad_enabled():
            return _second_order(query, key, value, mask, positions, options, tensors, gradients)
        grad_output, *later = (
            torch.zeros_like(x) if grad is None else grad for x, grad in zip((output, *tensors), gradients)
        )
        later = [x.flatten(0, 1) for x in later]
        grads = [torch.empty_like(x) for x in (query, key, value)]
        stop, parts = vectors.shape[2], _segments(query, value, options.chunk_size)
        for (part, chunk), memory in zip(reversed(parts), reversed(memories.unbind(0))):
            segment = _prepare(query, key, value, mask, positions, part, chunk, options)
            start = stop - (part.stop - part.start) // chunk
            saved = flows[:, :, part].reshape(5, -1, chunk), vectors[:, :, start:stop].flatten(1, 2), memory
            delta = grad_output[:, :, part].to(positions.dtype), output[:, :, part]
            results, later = _backward(segment, saved, *delta, later, options)
            for grad, result in zip(grads, results):
                grad[:, :, part] = result.view(grad[:, :, part].shape)
            stop = start
        return *grads, None, None, None, *(x.view_as(y) for x, y in zip(later, tensors))


def _second_order(query, key, value, mask, positions, options, tensors, gradients):
    """The gradients as functions of the inputs, for `create_graph=True`."""
    inputs = (query, key, value, *tensors)
    outputs = _differentiable(query, key, value, mask, positions, options, *tensors)
    pairs = [(output, grad) for output, grad in zip(outputs, gradients) if grad is not None]
    wanted = [x for x in inputs if x.requires_grad]
    found = iter(torch.autograd.grad(*zip(*pairs), inputs=wanted, create_graph=True, allow_unused=True))
    grads = [next(found) if x.requires_grad else None for x in inputs]
    return *grads[:3], None, None, None, *grads[3:]


def _later_sums(writer, weights, carry, eps):
    """sum_i weights_i (writer_i + eps) over later chunks [X, D]; eps times the sum from j on in the chunk; the next carry."""
    rest = eps * _sum_from(weights)
    after, carry = _prefix(carry, _rows(weights, writer) + rest[:, :1], reverse=True)
    return after, rest, carry


def _backflow(target, target_total, writer, weights, pairs, carry, eps):
    """target_j . sum_{i >= j} weights_i (writer_i + eps), with pairs[i, j] = writer_i . target_j for i >= j; and its sums."""
    after, rest, carry = _later_sums(writer, weights, carry, eps)
    return _rows(weights, pairs) + _rows(after, target.mT) + rest * target_total, after, rest, carry


def _backward(segment: _Segment, saved, grad_output: Tensor, output: Tensor, later, options: FlowOptions):
    """Gradients of a segment's queries, keys and values [X, C, .], and of the state it started in."""
    a, b, n = segment.phi_q, segment.phi_k, segment.n
    (incoming, outgoing, allocation, sent, rivals), vectors, memory = saved
    *later_sums, later_competition, later_memory = later
    strength = options.strength(sent, segment.keep)
    share = strength * n / nonzero(rivals)

    # aggregation
    competed, grad_sum = _weighted(segment.value, share), _weighted(grad_output, allocation / incoming)
    grad_log = (grad_output * output).sum(-1).view_as(n)
    memory_before, _ = _prefix(memory, torch.bmm(b.mT, competed))
    memory_after, later_memory = _prefix(later_memory, torch.bmm(a.mT, grad_sum), reverse=True)
    grad_competed = torch.bmm(b, memory_after).baddbmm_(segment.lower.mT, grad_sum)
    # competition, with d / d log share = d / d share * share
    grad_share = (competed * grad_competed).sum(-1)
    grad_rivals = (grad_share / nonzero(rivals)).view(later_competition.shape[0], -1)
    grad_rivals = _sum_from(grad_rivals) - later_competition[:, None]
    grad_sent = options.strength_gradient(grad_share - strength * grad_rivals.view_as(strength), sent) / n
    # each pair of positions takes part in four sums: a_i . b_j gets sum_t left_it right_jt, over t = 0, 1 for j <= i and
    # t = 2, 3 for i <= j
    grad_kept = grad_log * (1 - allocation) / n
    left, right, after_q, after_k, later_sums = _flow_backward(
        segment, incoming, outgoing, grad_log, grad_kept, grad_sent, later_sums, options.eps
    )
    pairs = torch.bmm(left[..., :2], right[..., :2].mT).baddbmm_(grad_sum, competed.mT).tril_()
    pairs += torch.bmm(left[..., 2:4], right[..., 2:4].mT).triu_()

    key_starts, query_starts, key_flow_starts, query_flow_starts = vectors
    ones = torch.ones_like(key_starts)
    before_k = torch.stack([key_flow_starts, key_starts, *after_q, ones], 1)
    before_q = torch.stack([*after_k, query_flow_starts, query_starts, ones], 1)
    grad_a = torch.bmm(left, before_k).baddbmm_(pairs, b).baddbmm_(grad_sum, memory_before.mT)
    grad_b = torch.bmm(right, before_q).baddbmm_(pairs.mT, a).baddbmm_(competed, memory_after.mT)
    grads = options.feature_gradient(grad_a, a), options.feature_gradient(grad_b, b), grad_competed * share[..., None]
    return grads, [*later_sums, -grad_rivals[:, 0], later_memory]


def _flow_backward(segment, incoming, outgoing, grad_log, grad_kept, grad_sent, later, eps):
    """The weights left_i, right_j [X, C, 5] of the gradient's pairs, and the sums over later chunks that they multiply.

    grad_kept and grad_sent are d / d I^ and d / d O^ over n; the fifth weight collects what eps brings to every dimension.
    """
    a, b, n = segment.phi_q, segment.phi_k, segment.n
    later_key, later_query, later_key_flow, later_query_flow = later
    r, s, one = n / incoming, n / outgoing, torch.ones_like(n)
    grad_r, after_sent, rest_sent, later_query_flow = _backflow(
        a, segment.total_q, b, grad_sent, segment.upper.mT, later_query_flow, eps
    )
    grad_s, after_kept, rest_kept, later_key_flow = _backflow(
        b, segment.total_k, a, grad_kept, segment.lower, later_key_flow, eps
    )
    grad_in = -(grad_r * r + grad_log) / incoming
    grad_out = -grad_s * s / outgoing
    after_in, rest_in, later_key = _later_sums(a, grad_in, later_key, eps)
    after_out, rest_out, later_query = _later_sums(b, grad_out, later_query, eps)
    left = torch.stack([grad_kept, grad_in, r, one, r * rest_sent + rest_out], -1)
    right = torch.stack([s, one, grad_sent, grad_out, s * rest_kept + rest_in], -1)
    later = [later_key, later_query, later_key_flow, later_query_flow]
    return left, right, (after_sent, after_out), (after_kept, after_in), later
