"""Flow attention of documents packed into one row: each goes through in a row of its own, with little padding.

    documents of l_1 >= l_2 >= ... tokens; a group is a run of them whose padding, sum (l_first - l_n), stays below
    an eighth of its real tokens or `FREE_PADDING`; each group is one batch [N, H, l_first, D] of flow attention

A state, or a sum, therefore begins anew with every document wherever it begins, and the cost is that of the real
tokens. Tokens move by gathers alone, forward and backward: each has one place, so the gradient of a gather is the
gather of the inverse order.

Paper: Krell et al. 2021, https://huggingface.co/papers/2107.02027, for packing without contamination. `FREE_PADDING`
is what one more call costs on a CPU, measured in tokens of 8 heads of 64.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .flow_state import FlowState
from .flow_tracing import is_traced

FREE_PADDING = 256
PADDING_SHARE = 8


class Packing(NamedTuple):
    """Places of T tokens: of a packed batch in P places of padded rows, group after group, and back."""

    tokens: Tensor  # [P] int64, which of the T tokens; 0 in padding
    slots: Tensor  # [T] int64, which of the P places
    padding: Tensor | None  # [K] int64, the places without a token, if there are any
    mask: Tensor | None  # [P] bool, True = a real token; None where all are
    rows: Tensor  # [N] int64, the document of each row, in the order of groups
    shapes: tuple[tuple[int, int], ...]  # rows and places a row of each group

    @classmethod
    def of_lengths(cls, lengths: Sequence[int], real: Tensor | None, device: torch.device) -> "Packing":
        """Of documents that follow one another, with their numbers of tokens; `real` [T] bool marks real tokens."""
        order, shapes = _groups(lengths)
        width = torch.tensor([width for rows, width in shapes for _ in range(rows)])
        count, rows = torch.tensor([lengths[row] for row in order]), torch.tensor(order)
        first = torch.tensor(list(lengths)).cumsum(0)[rows] - count
        row = torch.arange(len(order)).repeat_interleave(width)
        column = torch.arange(row.numel()) - (width.cumsum(0) - width)[row]
        held = column < count[row]
        tokens = torch.where(held, first[row] + column, 0)
        places = held.nonzero().flatten()
        slots = torch.empty_like(places).scatter(0, tokens[places], places)
        tokens, slots, held, rows, padding = (x.to(device) for x in (tokens, slots, held, rows, (~held).nonzero()))
        padding = padding.flatten() if padding.numel() else None
        mask = (None if padding is None else held) if real is None else held & real[tokens]
        return cls(tokens, slots, padding, mask, rows, shapes)

    @classmethod
    def of(cls, documents: Tensor, padding_mask: Tensor | None) -> "Packing":
        """From the number of each token's document in its row [B, L] and which tokens are real [B, L]."""
        rows = torch.arange(documents.shape[0], device=documents.device)[:, None]
        # numbers run on from row to row
        flat = (documents + rows * documents.shape[1]).flatten()
        lengths = flat.unique_consecutive(return_counts=True)[1].tolist()
        real = None if padding_mask is None else padding_mask.flatten()
        return cls.of_lengths(lengths, real, documents.device)

    def unpack(self, states: Tensor) -> list[Tensor]:
        """[B, H, L, D] with B L = T tokens -> one [N, H, M, D] a group."""
        heads, places = states.shape[1], _by_token(states)
        if not self.is_in_order:
            places = _move(places, self.tokens, self.slots, self.padding, None)
        parts = places.split([rows * width for rows, width in self.shapes])
        views = (part.view(*shape, heads, -1) for part, shape in zip(parts, self.shapes))
        return [view.transpose(1, 2).contiguous() for view in views]

    def pack(self, groups: Sequence[Tensor], batch_size: int) -> Tensor:
        """The inverse: one [N, H, M, D] a group -> [B, H, L, D]."""
        heads = groups[0].shape[1]
        tokens = torch.cat([_by_token(group) for group in groups])
        if not self.is_in_order:
            tokens = _move(tokens, self.slots, self.tokens, None, self.padding)
        return tokens.view(batch_size, -1, heads, tokens.shape[-1] // heads).transpose(1, 2)

    @property
    def is_in_order(self) -> bool:
        """All documents are of one length, so that each token is in its place."""
        return len(self.shapes) == 1 and self.padding is None

    def masks(self) -> list[Tensor | None]:
        """The mask [N, M] of each group."""
        if self.mask is None:
            return [None] * len(self.shapes)
        parts = self.mask.split([rows * width for rows, width in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes)]


def packed_flow_attention(
    query: Tensor,  # [B, H, L, D]
    key: Tensor,  # [B, H, L, D]
    value: Tensor,  # [B, H, L, M]
    packing: Packing,
    attend: Callable,
    state: FlowState | None = None,
) -> tuple[Tensor, FlowState | None]:
    """Output [B, H, L, M], and the states of the documents [N, ...] in their order if `attend` gives any.

    `attend(query, key, value, mask, state)` is flow attention of one group; `state` has a row a document.
    """
    groups = zip(*(packing.unpack(states) for states in (query, key, value)), packing.masks())
    numbers = packing.rows.split([rows for rows, _ in packing.shapes])
    outputs, states = [], []
    for (*tensors, mask), rows in zip(groups, numbers):
        output, after = attend(*tensors, mask, None if state is None else state.select_rows(rows))
        outputs.append(output)
        states.append(after)
    output = packing.pack(outputs, query.shape[0])
    if states[0] is None:
        return output, None
    joined = FlowState(*(torch.cat(tensors) for tensors in zip(*states)))
    return output, joined.select_rows(packing.rows.argsort())


def _groups(lengths: Sequence[int]) -> tuple[list[int], tuple[tuple[int, int], ...]]:
    """Documents by falling length, and the rows and width of each group of them."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    shapes, rows, tokens, width = [], 0, 0, lengths[order[0]]
    for row in order:
        padding = width * (rows + 1) - tokens - lengths[row]
        if padding > max(FREE_PADDING, tokens // PADDING_SHARE):
            shapes.append((rows, width))
            rows, tokens, width = 0, 0, lengths[row]
        rows, tokens = rows + 1, tokens + lengths[row]
    return order, (*shapes, (rows, width))


def _by_token(states: Tensor) -> Tensor:
    """[N, H, M, D] -> [N M, H D]."""
    return states.transpose(1, 2).flatten(2).flatten(0, 1)


def _move(source: Tensor, index: Tensor, inverse: Tensor, unfilled: Tensor | None, unmoved: Tensor | None) -> Tensor:
    return _gather(source, index, unfilled) if is_traced() else _Moved.apply(source, index, inverse, unfilled, unmoved)


class _Moved(torch.autograd.Function):
    """Rows `index` of a matrix, 0 in the rows `unfilled`; `inverse` says where its rows went, all but `unmoved`."""

    @staticmethod
    def forward(source, index, inverse, unfilled, unmoved):
        return _gather(source, index, unfilled)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[2], inputs[4])

    @staticmethod
    def backward(ctx, gradient):
        return _gather(gradient, *ctx.saved_tensors), None, None, None, None


def _gather(source: Tensor, index: Tensor, unfilled: Tensor | None) -> Tensor:
    moved = source.index_select(0, index)
    return moved if unfilled is None else moved.index_fill_(0, unfilled, 0)
