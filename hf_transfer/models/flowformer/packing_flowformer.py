"""Several documents in one row, as padding-free collators give them: where each begins.

A document begins where `position_ids` stop rising, where `seq_idx` changes and at each of `cu_seq_lens_q`
(transformers' DataCollatorWithFlattening gives all three). Flow attention sums over its whole row, so inside attention
each document has a row of its own (`flow_packing`); everything else works on the packed row. Softmax attention takes a
mask per pair instead.
"""

import torch
from torch import Tensor

from .flow_compatibility import restarts
from .flow_tracing import has_shape_alone, is_exported


def find_documents(
    shape: tuple[int, int],
    position_ids: Tensor | None,  # [B or 1, L]
    seq_idx: Tensor | None,  # [B or 1, L]
    cu_seq_lens_q: Tensor | None,  # [N + 1], 0 first and L last
    cu_seq_lens_k: Tensor | None,
    padding_mask: Tensor | None,  # [B, L] bool
) -> Tensor | None:
    """The number of each token's document in its row [B, L]; None where no row holds more than one.

    Raises:
        ValueError: bounds that do not fit the tokens, or packed input in a compiled graph, whose shapes would depend
            on it.
    """
    if all(given is None for given in (seq_idx, cu_seq_lens_q, cu_seq_lens_k)) and not is_exported() and shape[1] == 1:
        return None
    begins = None
    if position_ids is not None:
        begins = restarts(position_ids.expand(shape), padding_mask)
    if seq_idx is not None:
        if seq_idx.dim() != 2 or seq_idx.shape[1] != shape[1]:
            raise ValueError(f"`seq_idx` should be of shape {tuple(shape)}, got {tuple(seq_idx.shape)}.")
        changes = torch.zeros(tuple(shape), dtype=torch.bool, device=seq_idx.device)
        changes[:, 1:] = seq_idx.diff(dim=1) != 0
        begins = changes if begins is None else begins | changes
    if cu_seq_lens_q is not None or cu_seq_lens_k is not None:
        bounds = _begins_of_bounds(shape, cu_seq_lens_q, cu_seq_lens_k)
        begins = bounds if begins is None else begins | bounds.to(begins.device)
    if begins is None:
        return None
    if torch.compiler.is_compiling():
        if seq_idx is not None or cu_seq_lens_q is not None:
            raise ValueError("Packed documents cannot be compiled with Flowformer: pad them to rows of their own.")
        torch._assert_async(~begins.any(), "Packed documents cannot be compiled with Flowformer: pad them.")
        return None
    if has_shape_alone(begins):
        return None
    return begins.cumsum(1) if begins.any() else None


def _begins_of_bounds(shape, queries: Tensor | None, keys: Tensor | None) -> Tensor:
    if queries is None or (keys is not None and not torch.equal(queries, keys)):
        raise ValueError("`cu_seq_lens_q` and `cu_seq_lens_k` should be equal: queries and keys are the same tokens.")
    bounds, (batch_size, length) = queries.tolist(), shape
    if batch_size != 1 or bounds[0] != 0 or bounds[-1] != length or sorted(bounds) != bounds:
        raise ValueError(
            f"`cu_seq_lens_q` should rise from 0 to the length of one packed row, got {bounds} for "
            f"{batch_size} rows of {length} tokens."
        )
    begins = torch.zeros(tuple(shape), dtype=torch.bool, device=queries.device)
    begins[0, [bound for bound in bounds if 0 < bound < length]] = True
    return begins


def positions_in_documents(documents: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Positions [B, L] that count the real tokens of each document from 0."""
    real = torch.ones_like(documents) if padding_mask is None else padding_mask.long()
    before = real.cumsum(1) - real
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents.diff(dim=1) > 0
    return before - torch.where(begins, before, 0).cummax(1).values
