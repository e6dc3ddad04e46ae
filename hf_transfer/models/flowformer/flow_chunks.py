"""The arithmetic of causal flow attention on one segment: N chunks of C tokens, forward and backward.

With a = phi(q), b = phi(k), n_i the real tokens up to i, and every sum over positions up to i (or j):

    I_i  = (a_i + eps) . (sum b_j + eps)                    O_j  = (b_j + eps) . (sum a_i + eps)
    I^_i = (a_i + eps) . (sum b_j n_j / O_j + eps) / n_i    O^_j = (b_j + eps) . (sum a_i n_i / I_i + eps) / n_j
    e_j  = exp(clamp(O^_j))    Z_j = sum e_t                w_j  = v_j e_j n_j / Z_j
    R_i  = sigmoid(I^_i) / I_i * a_i (sum b_j^T w_j)

A chunk's products a_i . b_j serve every one of those sums: the lower triangle for sums over keys, the upper one for
sums over queries; what lies before the chunk comes from prefix sums over chunks. The gradient with respect to each
a_i . b_j is again one number per pair of positions, so the backward pass is two products with that matrix.

Keys and queries do the same with their parts exchanged, so they go through it stacked: side 0 sums b over keys and is
read by queries (I, I^), side 1 sums a over queries and is read by keys (O, O^). `_swap` passes from a sum's side to
the side that reads it.

Shapes: G = B * H heads, X = G * N chunks. A carry is what a segment starts from: sums [2, G, D], flow sums [2, G, D],
competition [G] and memory [G, D, M]. `later` is its mirror in the backward pass, what later segments send back to it.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .flow_options import FlowOptions, nonzero

# up to here prefix sums over chunks are a product with a triangular matrix, which beats a strided cumsum on a CPU
MAX_TRIANGULAR_CHUNKS = 64


class Triangles(NamedTuple):
    """Triangular matrices of ones, made once for all segments."""

    upper: Tensor  # [C, C], diagonal included
    before: Tensor | None  # [N, N] lower, without the diagonal; None for prefix sums by cumsum

    @classmethod
    def make(cls, like: Tensor, chunk: int, chunks: int | None = None) -> "Triangles":
        """Those of up to `chunks` chunks; without a number of chunks, of any number."""
        before = None if chunks is None else like.new_ones(chunks, chunks).tril_(-1)
        return cls(like.new_ones(chunk, chunk).triu_(), before)


class Segment(NamedTuple):
    """What both passes need of a segment."""

    phi: Tensor  # [2, X, C, D] b, a
    totals: Tensor  # [2, X, C] their sums over D
    lower: Tensor  # [X, C, C] a_i . b_j for j <= i, else 0
    upper: Tensor  # [X, C, C] a_i . b_j for i <= j, else 0
    value: Tensor  # [B, H, N * C, M], a view where it can be
    n: Tensor  # [X, C] real tokens so far, at least 1
    keep: Tensor | None  # [X, C] bool
    triangles: Triangles


class Saved(NamedTuple):
    """What the forward pass leaves for the backward pass."""

    flows: Tensor  # [5, X, C] I, O, sigmoid(I^), O^, Z
    starts: Tensor  # [4, X, D] the second factors of I, O, I^, O^ before each chunk, eps included
    memory: Tensor  # [G, D, M] sum b_j^T w_j before the segment


def prepare_segment(
    query,
    key,
    value,
    mask,
    positions,
    part: slice,
    chunk: int,
    triangles: Triangles,
    options: FlowOptions,
    differentiable: bool = False,
) -> Segment:
    """The segment at positions `part` of [B, H, L, .] inputs with mask [B, L] and counts n `positions` [B, L].

    A `differentiable` one is made without writing into tensors, for autograd, graph compilers and torch.func.
    """
    num_heads, keep = query.shape[1], None
    key, query, value = (x[:, :, part].to(positions.dtype) for x in (key, query, value))
    if differentiable:
        phi = torch.stack([options.features(key), options.features(query)])
    else:
        phi = key.new_empty(2, *key.shape)
        options.features(key, out=phi[0])
        options.features(query, out=phi[1])
    if mask is not None:
        drop = ~mask[:, None, part, None]
        # filled, not multiplied: padding may hold anything, NaN included
        phi, value = phi.masked_fill(drop, 0), value.masked_fill(drop, 0)
        keep = mask[:, None, part].expand(-1, num_heads, -1).reshape(-1, chunk)
    n = positions[:, None, part].expand(-1, num_heads, -1).reshape(-1, chunk)
    phi = phi.view(2, -1, chunk, phi.shape[-1])
    pairs = torch.bmm(phi[1], phi[0].mT)
    upper = pairs * triangles.upper[:chunk, :chunk]
    return Segment(phi, phi.sum(-1), pairs.tril_(), upper, value, n, keep, triangles)


def segment_forward(segment: Segment, carry: Sequence[Tensor], options: FlowOptions):
    """The output's factors [X, C, M] and [X, C], the next carry, and what `segment_backward` reads again."""
    phi, _, lower, _, value, n, keep, triangles = segment
    sums, flow_sums, competition, memory = carry
    flows, starts, sums = _flows(segment, torch.ones_like(segment.totals), sums, options.eps)
    conserved, flow_starts, flow_sums = _flows(segment, n / _swap(flows), flow_sums, options.eps)
    conserved = conserved / n
    allocation, sent = torch.sigmoid(conserved[0]), conserved[1]

    strength = options.strength(sent, keep)
    rivals = competition[:, None] + strength.view(competition.shape[0], -1).cumsum(-1)
    competition, rivals = rivals[:, -1], rivals.view_as(strength)
    competed = _weighted(value, strength * n / nonzero(rivals))
    memory_starts, next_memory = _prefix(memory, torch.bmm(phi[0].mT, competed), triangles)
    aggregated = torch.bmm(phi[1], memory_starts).baddbmm_(lower, competed)
    flows, incoming = torch.cat([flows, torch.stack([allocation, sent, rivals])]), flows[0]
    saved = Saved(flows, torch.cat([starts, flow_starts]), memory)
    return aggregated, allocation / incoming, (sums, flow_sums, competition, next_memory), saved


def segment_backward(
    segment: Segment,
    saved: Saved,
    grad_output: Tensor,
    output: Tensor,
    later: Sequence[Tensor],
    options: FlowOptions,
    grads: Sequence[Tensor],
) -> list[Tensor]:
    """Writes the gradients of queries, keys and values into `grads`; returns the next `later`.

    `grad_output`, `output` and `grads` are [B, H, N * C, .], the last may be views of any strides and dtype.
    """
    phi, _, lower, _, value, n, keep, triangles = segment
    _, _, allocation, sent, rivals = saved.flows
    later_sums, later_flow_sums, later_competition, later_memory = later
    strength = options.strength(sent, keep)
    share = strength * n / nonzero(rivals)

    # aggregation
    competed, grad_sum = _weighted(value, share), _weighted(grad_output, allocation / saved.flows[0])
    grad_log = (grad_output * output).sum(-1).view_as(n)
    memory_before, _ = _prefix(saved.memory, torch.bmm(phi[0].mT, competed), triangles)
    memory_after, later_memory = _prefix(later_memory, torch.bmm(phi[1].mT, grad_sum), triangles, True)
    grad_competed = torch.bmm(phi[0], memory_after).baddbmm_(lower.mT, grad_sum)
    torch.mul(grad_competed.view_as(value), share.view(*value.shape[:3], 1), out=grads[2])
    # competition: grad_share is d / d log share
    grad_share = (competed * grad_competed).sum(-1)
    grad_rivals = (grad_share / nonzero(rivals)).view(later_competition.shape[0], -1)
    grad_rivals = _sum_from(grad_rivals) - later_competition[:, None]
    grad_sent = options.strength_gradient(grad_share - strength * grad_rivals.view_as(strength), sent)
    grad_conserved = torch.stack([grad_log * (1 - allocation), grad_sent]) / n
    weights, outside, later_sums, later_flow_sums = _flows_backward(
        segment, saved, grad_log, grad_conserved, later_sums, later_flow_sums, options.eps
    )
    pairs = torch.bmm(grad_sum, competed.mT)
    grad_phi = _grad_phi(segment, pairs, weights, outside)
    grad_phi[0].baddbmm_(competed, memory_after.mT)
    grad_phi[1].baddbmm_(grad_sum, memory_before.mT)
    for grad, side in zip(grads, (1, 0)):
        options.feature_gradient(grad_phi[side].view(grad.shape), phi[side].view(grad.shape), out=grad)
    return [later_sums, later_flow_sums, -grad_rivals[:, 0], later_memory]


def _grad_phi(segment: Segment, pairs: Tensor, weights: Sequence[Tensor], outside: Tensor) -> Tensor:
    """d / d phi [2, X, C, D] from the weights of `_flows_backward` and the gradient of the aggregation's `pairs`.

    a_i . b_j gets pairs_ij + grad_kept_i s_j + grad_in_i where j <= i and grad_sent_j r_i + grad_out_j where i <= j.
    """
    (grad_sent, grad_kept), (grad_out, grad_in), (s, r) = (column.unbind() for column in weights[:3])
    chunk = segment.n.shape[-1]
    pairs += torch.addcmul(grad_in[..., None], grad_kept[..., None], s[:, None])
    above = torch.addcmul(grad_out[:, None], grad_sent[:, None], r[..., None])
    pairs.tril_().addcmul_(above, segment.triangles.upper[:chunk, :chunk])
    grad_phi = torch.bmm(torch.stack(weights, -1).flatten(0, 1), outside.flatten(0, 1)).view_as(segment.phi)
    grad_phi[0].baddbmm_(pairs.mT, segment.phi[1])
    grad_phi[1].baddbmm_(pairs, segment.phi[0])
    return grad_phi


def _swap(sides: Tensor) -> Tensor:
    """From [2, ...] by the side that is summed to [2, ...] by the side that reads the sum, and back."""
    return sides.flip(0)


def _rows(weights: Tensor, matrix: Tensor) -> Tensor:
    """sum_i weights_i matrix_i: [..., C] x [..., C, K] -> [..., K]; row times matrix is the fast way in a batch."""
    rows = torch.bmm(weights.reshape(-1, 1, weights.shape[-1]), matrix.flatten(0, -3))
    return rows.view(*weights.shape[:-1], -1)


def _weighted(tensor: Tensor, weights: Tensor) -> Tensor:
    """[B, H, N * C, M] times one weight per position [X, C] -> [X, C, M]."""
    product = tensor * weights.view(*tensor.shape[:3], 1)
    return product.reshape(*weights.shape, tensor.shape[-1])


def _sum_from(weights: Tensor) -> Tensor:
    """sum_{i >= j} weights_i along the last dimension."""
    return weights.flip(-1).cumsum(-1).flip(-1)


def _prefix(carry: Tensor, sums: Tensor, triangles: Triangles, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """`carry` [G, .] plus the sums [X, .] of the chunks before each chunk (after it, when reversed), and plus all."""
    sums = sums.unflatten(0, (carry.shape[0], -1))
    chunks, given = sums.shape[1], carry.unsqueeze(1)
    if triangles.before is None:
        # the number of chunks may be symbolic under a compiler: no branch on it, not even on one chunk less
        ordered = sums.flip(1) if reverse else sums
        starts = torch.cat([given, ordered], 1).cumsum(1)[:, :-1]
        starts = starts.flip(1) if reverse else starts
    elif chunks == 1:
        starts = given
    else:
        before = triangles.before[:chunks, :chunks]
        outside = (before.mT if reverse else before).expand(carry.shape[0], -1, -1)
        starts = torch.baddbmm(given.flatten(2), outside, sums.flatten(2)).view_as(sums)
    last = 0 if reverse else -1
    return starts.flatten(0, 1), starts[:, last] + sums[:, last]


def _flows(segment: Segment, weights: Tensor, carry: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(reader_i + eps) . (carry + sum_{j <= i} weights_j summed_j + eps) of both sides, weights [2, X, C].

    Returns it [2, X, C] with the second factor before each chunk [2, X, D] and the next carry [2, G, D].
    """
    phi, totals, lower, upper = segment[:4]
    starts, after = _prefix(carry.flatten(0, 1), _rows(weights, phi).flatten(0, 1), segment.triangles)
    starts = starts.view(2, -1, phi.shape[-1]) + eps
    small = (weights * totals).cumsum(-1) + starts.sum(-1, keepdim=True)
    within = torch.stack([_rows(weights[0], lower.mT), _rows(weights[1], upper)])
    flows = (within + _swap(_rows(_swap(starts), phi.mT))).add_(small, alpha=eps)
    return flows, starts, after.view_as(carry)


def _later_sums(segment: Segment, weights: Tensor, later: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """sum_i weights_i (phi_i + eps) of later chunks; eps sum_{i >= j} weights_i in the chunk; the next `later`."""
    rest = eps * _sum_from(weights)
    sums = _rows(weights, segment.phi) + rest[..., :1]
    after, later_sums = _prefix(later.flatten(0, 1), sums.flatten(0, 1), segment.triangles, True)
    return after.view_as(sums), rest, later_sums.view_as(later)


def _flows_backward(segment: Segment, saved: Saved, grad_log, grad_conserved, later_sums, later_flow_sums, eps: float):
    """What `_flows` sends back, by the side of phi that receives it.

    Returns five weights [2, X, C] and the five vectors [2, X, 5, D] outside the chunk which they multiply, the first
    two of them also multiply what is inside; then the next `later_sums` and `later_flow_sums`. The weights are
    d / d conserved flow, d / d flow, n / flow, one, and what eps brings to every dimension.
    """
    phi, totals, lower, upper, _, n, *_ = segment
    starts, flow_starts = saved.starts.view(2, *phi.shape[:2], -1)
    scales = n / _swap(saved.flows[:2])
    grads = _swap(grad_conserved)
    after_flow, rest_flow, later_flow_sums = _later_sums(segment, grads, _swap(later_flow_sums), eps)
    within = torch.stack([_rows(grad_conserved[0], lower), _rows(grad_conserved[1], upper.mT)])
    grad_scales = within + _rows(_swap(after_flow), phi.mT) + _swap(rest_flow) * totals
    grad_logs = grad_scales.mul_(scales)
    grad_logs[1] += grad_log
    grad_flows = grad_logs * scales / -n
    after, rest, later_sums = _later_sums(segment, grad_flows, _swap(later_sums), eps)
    weights = grads, grad_flows, scales, torch.ones_like(scales), scales * _swap(rest_flow) + _swap(rest)
    outside = _swap(torch.stack([flow_starts, starts, after_flow, after, torch.ones_like(after)], 2))
    return weights, outside, _swap(later_sums), _swap(later_flow_sums)
