"""Batches in which a row's features do not depend on the rows beside it.

Most models hide padding by an attention mask. Some cannot: a group norm over the samples of a waveform, a convolution
over padded places, a text model without a mask. Whether a model can is tried on a few rows before the pass; where it
cannot, rows of one length make a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers.utils import logging

from hf_transfer.modeling.masks import UnknownMaskError

logger = logging.get_logger(__name__)

# Rows among which some of different length are looked for, and how many of these are tried.
LOOKED_AT, TRIED = 16, 8

Features = Mapping[int, Tensor]
Extract = Callable[[dict[str, Tensor]], Features]


def plan_batches(loader: DataLoader, order: Tensor, batch_size: int, extract: Extract) -> list[Tensor]:
    """The places of every batch: `order` [n] cut at `batch_size`, or batches of one length where padding would leak.

    Args:
        loader: its `collate_fn` makes inputs and labels of rows of its dataset.
        order: places of the rows.
        batch_size: rows at once.
        extract: features of inputs.
    """

    def inputs_of(indices: list[int]) -> dict[str, Tensor]:
        return loader.collate_fn(loader.dataset.__getitems__(indices))[0]

    plan = list(order.split(batch_size))
    if batch_size == 1 or len(order) < 2:
        return plan
    looked_at = order[torch.linspace(0, len(order) - 1, LOOKED_AT).long()].unique().tolist()
    tried = list({size_of(inputs_of([index])): index for index in looked_at}.values())[:TRIED]
    if len(tried) < 2 or not padding_leaks(inputs_of, tried, batch_size, extract):
        return plan
    logger.info("Padding changes the features of this model: its batches hold rows of one length.")
    by_size: dict[int, list[int]] = {}
    for index in order.tolist():
        by_size.setdefault(size_of(inputs_of([index])), []).append(index)
    longest_first = [torch.tensor(by_size[size]) for size in sorted(by_size, reverse=True)]
    return [batch for rows in longest_first for batch in rows.split(batch_size)]


def planned(loader: DataLoader, plan: list[Tensor]) -> DataLoader:
    """A loader of the same rows in the batches of a plan."""
    return DataLoader(
        loader.dataset,
        batch_sampler=[batch.tolist() for batch in plan],
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
    )


def padding_leaks(
    inputs_of: Callable[[list[int]], dict[str, Tensor]], indices: list[int], batch_size: int, extract: Extract
) -> bool:
    """Whether the features of some of these rows, which differ in length, change beside the longest of them by more
    than rounding does.
    """
    longest = max(indices, key=lambda index: size_of(inputs_of([index])))
    others = torch.tensor([index for index in indices if index != longest])
    for some in others.split(batch_size - 1):
        together = inputs_of([longest, *some.tolist()])
        try:
            beside = extract(together)
        except UnknownMaskError:
            return True
        mask = together.get("attention_mask")
        for row, index in enumerate(some.tolist(), start=1):
            alone = extract(inputs_of([index]))
            is_left = mask is not None and mask.ndim == 2 and not bool(mask[row, 0])
            if any(differs(alone[layer][0], beside[layer][row], is_left) for layer in alone):
                return True
    return False


def differs(alone: Tensor, padded: Tensor, is_left: bool) -> bool:
    """Whether features [D] or [T, D] differ by more than rounding; padding at either end is cut off."""
    if alone.ndim > 1:
        padded = padded[-len(alone) :] if is_left else padded[: len(alone)]
    rounding = torch.finfo(alone.dtype).eps ** 0.5
    return not bool((padded - alone).norm() <= rounding * alone.norm())


def size_of(inputs: Mapping[str, Tensor]) -> int:
    """How many numbers the inputs of a row hold: rows of one length have the same."""
    return sum(value.numel() for value in inputs.values())
