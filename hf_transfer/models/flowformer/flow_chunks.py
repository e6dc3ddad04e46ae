"""The arithmetic of causal flow attention on one segment: N chunks of C tokens, forward and backward.

With a = phi(q), b = phi(k), n_i the real tokens up to i, and every sum over positions up to i (or j):

    I_i  = (a_i + eps) . (sum b_j + eps)                    O_j  = (b_j + eps) . (sum a_i + eps)
    I^_i = (a_i + eps) . (sum b_j n_j / O_j + eps) / n_i    O^_j = (b_j + eps) . (sum a_i n_i / I_i + eps) / n_j
    e_j  = exp(clamp(O^_j))    Z_j = sum e_t                w_j  = v_j e_j n_j / Z_j
    R_i  = sigmoid(I^_i) / I_i * a_i (sum b_j^T w_j)

A chunk's products a_i . b_j serve every one of those sums: the lower triangle for sums over keys, the upper one for
sums over queries; what lies before the chunk comes from prefix sums over chunks. The gradient with respect to each
a_i . b_j is again one number per pair of positions, so the backward pass is two products with that matrix.

Shapes: G = B * H heads, X = G * N chunks. A carry is what a segment starts from; `later` is its mirror in the backward
pass, the gradient that later segments send to it.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .flow_options import FlowOptions, nonzero

# up to here prefix sums over chunks are a product with a triangular matrix, which beats a strided cumsum on a CPU
MAX_TRIANGULAR_CHUNKS = 64


class Segment(NamedTuple):
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


class Saved(NamedTuple):
    """What the forward pass leaves for the backward pass."""

    flows: Tensor  # [5, X, C] I, O, sigmoid(I^), O^, Z
    starts: Tensor  # [4, X, D] the second factors of I, O, I^, O^ before each chunk, eps included
    memory: Tensor  # [G, D, M] sum b_j^T w_j before the segment


def prepare_segment(query, key, value, mask, positions, part: slice, chunk: int, options: FlowOptions) -> Segment:
    """The segment at positions `part` of [B, H, L, .] inputs with mask [B, L] and counts n `positions` [B, L]."""
    num_heads, keep = query.shape[1], None
    query, key, value = (x[:, :, part].to(positions.dtype) for x in (query, key, value))
    a, b = options.features(query), options.features(key)
    if mask is not None:
        drop = ~mask[:, None, part, None]
        # filled, not multiplied: padding may hold anything, NaN included
        a, b, value = (x.masked_fill(drop, 0) for x in (a, b, value))
        keep = mask[:, None, part].expand(-1, num_heads, -1).reshape(-1, chunk)
    n = positions[:, None, part].expand(-1, num_heads, -1).reshape(-1, chunk)
    a, b = a.reshape(-1, chunk, a.shape[-1]), b.reshape(-1, chunk, b.shape[-1])
    pairs = torch.bmm(a, b.mT)
    upper = pairs * pairs.new_ones(chunk, chunk).triu()
    return Segment(a, b, a.sum(-1), b.sum(-1), pairs.tril_(), upper, value, n, keep)


def segment_forward(segment: Segment, carry: Sequence[Tensor], options: FlowOptions):
    """The output's factors [X, C, M] and [X, C], the next carry, and what `segment_backward` reads again."""
    a, b, total_q, total_k, lower, upper, value, n, keep = segment
    key_sum, query_sum, key_flow, query_flow, competition, memory = carry
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
    memory_starts, next_memory = _prefix(memory, torch.bmm(b.mT, competed))
    aggregated = torch.bmm(a, memory_starts).baddbmm_(lower, competed)
    saved = Saved(
        torch.stack([incoming, outgoing, allocation, sent, rivals]),
        torch.stack([key_starts, query_starts, key_flow_starts, query_flow_starts]),
        memory,
    )
    carry = key_sum, query_sum, key_flow, query_flow, competition, next_memory
    return aggregated, allocation / incoming, carry, saved


def segment_backward(
    segment: Segment, saved: Saved, grad_output, output, later: Sequence[Tensor], options: FlowOptions
):
    """Gradients of queries, keys and values [X, C, .] and of the carry, from those of the output [B, H, N * C, M]."""
    a, b, n = segment.phi_q, segment.phi_k, segment.n
    incoming, _, allocation, sent, rivals = saved.flows
    *later_sums, later_competition, later_memory = later
    strength = options.strength(sent, segment.keep)
    share = strength * n / nonzero(rivals)

    # aggregation
    competed, grad_sum = _weighted(segment.value, share), _weighted(grad_output, allocation / incoming)
    grad_log = (grad_output * output).sum(-1).view_as(n)
    memory_before, _ = _prefix(saved.memory, torch.bmm(b.mT, competed))
    memory_after, later_memory = _prefix(later_memory, torch.bmm(a.mT, grad_sum), reverse=True)
    grad_competed = torch.bmm(b, memory_after).baddbmm_(segment.lower.mT, grad_sum)
    # competition: grad_share is d / d log share
    grad_share = (competed * grad_competed).sum(-1)
    grad_rivals = (grad_share / nonzero(rivals)).view(later_competition.shape[0], -1)
    grad_rivals = _sum_from(grad_rivals) - later_competition[:, None]
    grad_sent = options.strength_gradient(grad_share - strength * grad_rivals.view_as(strength), sent) / n
    grad_kept = grad_log * (1 - allocation) / n
    # flows: a_i . b_j gets sum_t left_it right_jt, over t = 0, 1 where j <= i and over t = 2, 3 where i <= j
    left, right, after_q, after_k, later_sums = _flow_backward(
        segment, saved.flows, grad_log, grad_kept, grad_sent, later_sums, options.eps
    )
    pairs = torch.bmm(left[..., :2], right[..., :2].mT).baddbmm_(grad_sum, competed.mT).tril_()
    pairs += torch.bmm(left[..., 2:4], right[..., 2:4].mT).triu_()

    key_starts, query_starts, key_flow_starts, query_flow_starts = saved.starts
    ones = torch.ones_like(key_starts)
    outside_q = torch.stack([key_flow_starts, key_starts, *after_q, ones], 1)
    outside_k = torch.stack([*after_k, query_flow_starts, query_starts, ones], 1)
    grad_a = torch.bmm(left, outside_q).baddbmm_(pairs, b).baddbmm_(grad_sum, memory_before.mT)
    grad_b = torch.bmm(right, outside_k).baddbmm_(pairs.mT, a).baddbmm_(competed, memory_after.mT)
    grads = options.feature_gradient(grad_a, a), options.feature_gradient(grad_b, b), grad_competed * share[..., None]
    return grads, [*later_sums, -grad_rivals[:, 0], later_memory]


def _rows(weights: Tensor, matrix: Tensor) -> Tensor:
    """sum_i weights_i matrix_i: [X, C] x [X, C, K] -> [X, K]; row times matrix is the fast way round in a batch."""
    return torch.bmm(weights.unsqueeze(1), matrix).squeeze(1)


def _weighted(tensor: Tensor, weights: Tensor) -> Tensor:
    """[B, H, N * C, M] times one weight per position [X, C] -> [X, C, M]."""
    product = tensor * weights.view(*tensor.shape[:3], 1)
    return product.reshape(*weights.shape, tensor.shape[-1])


def _sum_from(weights: Tensor) -> Tensor:
    """sum_{i >= j} weights_i along the last dimension."""
    return weights.flip(-1).cumsum(-1).flip(-1)


def _prefix(carry: Tensor, sums: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """`carry` [G, .] plus the sums [X, .] of the chunks before each chunk (after it, when reversed), and plus all."""
    sums = sums.unflatten(0, (carry.shape[0], -1))
    chunks = sums.shape[1]
    # the number of chunks may be symbolic under a compiler: no branch on it
    if torch.compiler.is_compiling() or chunks > MAX_TRIANGULAR_CHUNKS:
        ordered = sums.flip(1) if reverse else sums
        starts = torch.cat([carry.unsqueeze(1), ordered[:, :-1]], 1).cumsum(1)
        starts = starts.flip(1) if reverse else starts
    elif chunks == 1:
        starts = carry.unsqueeze(1)
    else:
        ones = sums.new_ones(chunks, chunks)
        outside = ones.triu(1) if reverse else ones.tril(-1)
        starts = (outside @ sums.flatten(2)).view_as(sums) + carry.unsqueeze(1)
    last = 0 if reverse else -1
    return starts.flatten(0, 1), starts[:, last] + sums[:, last]


def _flow(reader, writer, writer_total, weights, pairs, carry, eps):
    """(reader_i + eps) . (carry + sum_{j <= i} weights_j writer_j + eps); pairs[j, i] = writer_j . reader_i, j <= i.

    Returns it [X, C] with the second factor before each chunk [X, D] and the next carry [G, D].
    """
    starts, carry = _prefix(carry, _rows(weights, writer))
    starts = starts + eps
    small = (weights * writer_total).cumsum(-1) + starts.sum(-1, keepdim=True)
    return _rows(weights, pairs) + _rows(starts, reader.mT) + eps * small, starts, carry


def _later_sums(writer, weights, later, eps):
    """sum_i weights_i (writer_i + eps) of later chunks; eps sum_{i >= j} weights_i in the chunk; the next `later`."""
    rest = eps * _sum_from(weights)
    after, later = _prefix(later, _rows(weights, writer) + rest[:, :1], reverse=True)
    return after, rest, later


def _backflow(target, target_total, writer, weights, pairs, later, eps):
    """target_j . sum_{i >= j} weights_i (writer_i + eps), pairs[i, j] = writer_i . target_j, and `_later_sums`."""
    after, rest, later = _later_sums(writer, weights, later, eps)
    return _rows(weights, pairs) + _rows(after, target.mT) + rest * target_total, after, rest, later


def _flow_backward(segment: Segment, flows: Tensor, grad_log, grad_kept, grad_sent, later, eps: float):
    """The weights left_i, right_j [X, C, 5] of the gradient's pairs, and the sums over later chunks they multiply.

    grad_kept, grad_sent are d / d I^ and d / d O^ over n; the fifth weight is what eps brings to every dimension.
    """
    a, b, n = segment.phi_q, segment.phi_k, segment.n
    incoming, outgoing = flows[:2]
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
