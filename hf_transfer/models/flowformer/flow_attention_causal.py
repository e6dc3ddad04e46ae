"""Causal flow attention in linear time, segment by segment, and one token at a time.

A segment is as many chunks as fit the cache: they go through batched matrix products together (`flow_chunks`), and
segments follow one another through the state, in the backward pass too. It keeps the inputs, the output, five numbers
per position, four vectors per chunk and one matrix per segment, and recomputes the rest. So no temporary grows with
the length, which matters on a CPU, where fresh large tensors cost more in page faults than in arithmetic.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258
"""

import torch
from torch import Tensor
from torch.nn import functional

from .flow_chunks import MAX_TRIANGULAR_CHUNKS, Saved, Triangles, prepare_segment, segment_backward, segment_forward
from .flow_options import FlowOptions, nonzero
from .flow_state import FlowState
from .flow_tracing import in_full_precision, is_exported, is_traced, needs_plain_backward

# elements of one [B, H, segment, D] temporary: 2 MiB in float32 stays in a CPU's cache; a GPU wants few large launches
CPU_SEGMENT_ELEMENTS = 2**19
GPU_SEGMENT_ELEMENTS = 2**24


def causal_flow_attention(
    query: Tensor,  # [B, H, L, D]
    key: Tensor,  # [B, H, L, D]
    value: Tensor,  # [B, H, L, M]
    mask: Tensor | None,  # [B, L] bool
    state: FlowState,
    options: FlowOptions,
) -> tuple[Tensor, FlowState]:
    """Output [B, H, L, M] in the dtype of `value` and the state after the last token; differentiable in both."""
    steps = torch.arange(1, query.shape[2] + 1, device=query.device)[None] if mask is None else mask.cumsum(-1)
    counts = state.num_tokens[:, None] + steps
    positions = counts.clamp(min=1).to(state.memory.dtype)
    run = _differentiable if is_traced() else _CausalFlow.apply
    output, *tensors = run(query, key, value, mask, positions, options, *state[:6])[:7]
    return output, FlowState(*tensors, counts[:, -1])


def causal_flow_step(
    query: Tensor,  # [B, H, 1, D]
    key: Tensor,  # [B, H, 1, D]
    value: Tensor,  # [B, H, 1, M]
    mask: Tensor | None,  # [B, 1] bool
    state: FlowState,
    options: FlowOptions,
) -> tuple[Tensor, FlowState]:
    """`causal_flow_attention` of one token, written as the recurrence it is."""
    dtype, eps, keep, new_tokens = state.memory.dtype, options.eps, None, 1
    a, b, value_now = (x[:, :, 0].to(dtype) for x in (query, key, value))
    a, b = options.features(a), options.features(b)
    if mask is not None:
        keep, new_tokens = mask, mask[:, 0]
        a, b, value_now = (x.masked_fill(~mask[..., None], 0) for x in (a, b, value_now))
    num_tokens = state.num_tokens + new_tokens
    n = num_tokens.clamp(min=1).to(dtype)[:, None]
    key_sum, query_sum = state.key_sum + b, state.query_sum + a
    incoming, outgoing = ((a + eps) * (key_sum + eps)).sum(-1), ((b + eps) * (query_sum + eps)).sum(-1)
    key_flow = state.key_flow + b * (n / outgoing)[..., None]
    query_flow = state.query_flow + a * (n / incoming)[..., None]
    kept, sent = ((a + eps) * (key_flow + eps)).sum(-1) / n, ((b + eps) * (query_flow + eps)).sum(-1) / n
    strength = options.strength(sent, keep)
    competition = state.competition + strength
    competed = value_now * (strength * n / nonzero(competition))[..., None]
    memory = state.memory + b[..., None] * competed[..., None, :]
    output = a[..., None, :] @ memory * (torch.sigmoid(kept) / incoming)[..., None, None]
    state = FlowState(key_sum, query_sum, key_flow, query_flow, competition, memory, num_tokens)
    return output.to(value.dtype), state


def _segments(query: Tensor, value: Tensor, chunk_size: int) -> list[tuple[slice, int]]:
    """(positions, chunk size) of each segment: whole chunks as the budget allows, then the rest as one short chunk."""
    batch_size, num_heads, length, key_dim = query.shape
    whole = length - length % chunk_size
    budget = CPU_SEGMENT_ELEMENTS if query.device.type == "cpu" else GPU_SEGMENT_ELEMENTS
    chunks = budget // (batch_size * num_heads * max(key_dim, value.shape[-1]) * chunk_size)
    segment = min(max(chunks, 1), MAX_TRIANGULAR_CHUNKS) * chunk_size
    parts = [(slice(start, min(start + segment, whole)), chunk_size) for start in range(0, whole, segment)]
    if whole < length:
        parts.append((slice(whole, length), length - whole))
    return parts


def _differentiable(query, key, value, mask, positions, options, *tensors):
    """All chunks at once in operations autograd follows, for graph compilers and for second derivatives.

    Masked padding up to whole chunks keeps it free of branches on the length, which may be symbolic.
    """
    length, chunk = query.shape[2], options.chunk_size
    if not torch.compiler.is_compiling():
        chunk = min(chunk, length)
    padded = (length // chunk + 2 if is_exported() else (length + chunk - 1) // chunk) * chunk
    mask = torch.ones_like(positions, dtype=torch.bool) if mask is None else mask
    mask = _lengthen(mask, 1, padded) & (torch.arange(padded, device=mask.device) < length)
    positions = _lengthen(positions, 1, padded).clamp(min=1)
    query, key, longer = (_lengthen(x, 2, padded) for x in (query, key, value))
    triangles = Triangles.make(positions, chunk)
    segment = prepare_segment(query, key, longer, mask, positions, slice(None), chunk, triangles, options, True)
    aggregated, scale, carry, _ = segment_forward(segment, _to_carry(tensors), options)
    output = (aggregated * scale[..., None]).view_as(segment.value)
    return _shorten(output, length).to(value.dtype), *_from_carry(carry, tensors)


def _lengthen(tensor: Tensor, dim: int, length: int) -> Tensor:
    """A tensor with `length` entries along `dim`, of which the later ones hold anything finite."""
    if is_exported():
        # an exporter cannot prove that padding has a size above 0, and a gather asks for no proof
        rows = torch.arange(length, device=tensor.device).clamp(max=tensor.shape[dim] - 1)
        return tensor.index_select(dim, rows)
    return functional.pad(tensor, (0, 0) * (tensor.dim() - 1 - dim) + (0, length - tensor.shape[dim]))


def _shorten(output: Tensor, length: int) -> Tensor:
    """The first `length` positions of [B, H, L, M]."""
    if is_exported():
        return output.index_select(2, torch.arange(length, device=output.device))
    return output[:, :, :length]


def _to_carry(tensors):
    """The six tensors of a state [B, H, ...] as what a segment starts from, over heads G = B * H."""
    key_sum, query_sum, key_flow, query_flow, competition, memory = (x.flatten(0, 1) for x in tensors)
    return torch.stack([key_sum, query_sum]), torch.stack([key_flow, query_flow]), competition, memory


def _from_carry(carry, tensors):
    """The inverse of `_to_carry`, in the shapes of `tensors`."""
    sums, flow_sums, *others = carry
    return [x.view_as(y) for x, y in zip((*sums.unbind(), *flow_sums.unbind(), *others), tensors)]


class _CausalFlow(torch.autograd.Function):
    """Segment after segment, each recomputed in the backward pass from the state it started in."""

    @staticmethod
    def forward(query, key, value, mask, positions, options, *tensors):
        carry = _to_carry(tensors)
        output, heads = torch.empty_like(value), carry[0].shape[1]
        flows, starts, memories = [], [], []
        triangles = Triangles.make(positions, options.chunk_size, MAX_TRIANGULAR_CHUNKS)
        for part, chunk in _segments(query, value, options.chunk_size):
            segment = prepare_segment(query, key, value, mask, positions, part, chunk, triangles, options)
            aggregated, scale, carry, saved = segment_forward(segment, carry, options)
            here = output[:, :, part]
            torch.mul(aggregated.view(here.shape), scale.view(*here.shape[:3], 1), out=here)
            flows.append(saved.flows.view(5, heads, -1))
            starts.append(saved.starts.unflatten(1, (heads, -1)))
            memories.append(saved.memory)
        return output, *_from_carry(carry, tensors), torch.cat(flows, 2), torch.cat(starts, 2), torch.stack(memories)

    @staticmethod
    def setup_context(ctx, inputs, output):
        query, key, value, mask, positions, ctx.options, *tensors = inputs
        result, *_, flows, starts, memories = output
        ctx.mark_non_differentiable(flows, starts, memories)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, key, value, mask, positions, result, flows, starts, memories, *tensors)

    @staticmethod
    @in_full_precision
    def backward(ctx, *gradients):
        query, key, value, mask, positions, output, flows, starts, memories, *tensors = ctx.saved_tensors
        options, gradients = ctx.options, gradients[:7]
        if needs_plain_backward(*gradients):
            return _second_order(query, key, value, mask, positions, options, tensors, gradients)
        given = (torch.zeros_like(x) if grad is None else grad for x, grad in zip((output, *tensors), gradients))
        grad_output, *later = given
        later = _to_carry(later)
        # one allocation, which the C library is likelier to keep mapped for the next call than three
        sizes = [x.numel() for x in (query, key, value)]
        grads = [x.view_as(y) for x, y in zip(query.new_empty(sum(sizes)).split(sizes), (query, key, value))]
        stop, parts = starts.shape[2], _segments(query, value, options.chunk_size)
        triangles = Triangles.make(positions, options.chunk_size, MAX_TRIANGULAR_CHUNKS)
        for (part, chunk), memory in zip(reversed(parts), reversed(memories.unbind(0))):
            segment = prepare_segment(query, key, value, mask, positions, part, chunk, triangles, options)
            first = stop - (part.stop - part.start) // chunk
            saved = Saved(flows[:, :, part].reshape(5, -1, chunk), starts[:, :, first:stop].flatten(1, 2), memory)
            delta = grad_output[:, :, part].to(positions.dtype), output[:, :, part]
            here = [grad[:, :, part] for grad in grads]
            later = segment_backward(segment, saved, *delta, later, options, here)
            stop = first
        return *grads, None, None, None, *_from_carry(later, tensors)


def _second_order(query, key, value, mask, positions, options, tensors, gradients):
    """The gradients as functions of the inputs, for `create_graph=True`, batched gradients and torch.func."""
    create_graph = torch.is_grad_enabled()
    inputs = (query, key, value, *tensors)
    with torch.enable_grad():
        outputs = _differentiable(query, key, value, mask, positions, options, *tensors)
        outputs, gradients = zip(*((output, grad) for output, grad in zip(outputs, gradients) if grad is not None))
        wanted = [x for x in inputs if x.requires_grad]
        found = iter(torch.autograd.grad(outputs, wanted, gradients, create_graph=create_graph, allow_unused=True))
    grads = [next(found) if x.requires_grad else None for x in inputs]
    return *grads[:3], None, None, None, *grads[3:]
