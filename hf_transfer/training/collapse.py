"""Whether a self-supervised training collapses: gauges of the features at every evaluation, and a warning.

    collapsed = channel_spread * sqrt(D) < .02  or  rank_me < 1.5

The bounds were chosen on MNIST-5k with a Flowformer, a ResNet and a ViT of 32 to 64 features: random weights have .066
to .13 and ranks from 3.5 to 5.1; views that are only pulled together bring the two transformers down to .0016 to .006
and 1.07 to 1.24.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers.utils import logging

from hf_transfer.functional.collapse import channel_spread, rank_me
from hf_transfer.training.transfer_model import TransferModel, TransferOutput

logger = logging.get_logger(__name__)

GAUGES = ("rank_me", "channel_spread")
LEAST_SPREAD = 0.02
LEAST_RANK = 1.5
MOST_ROWS = 8192
"""Of an evaluation set, so that the singular values of its features take little time and memory."""


class CollapseGauges:
    """Reads the features of an evaluation as they pass: `with gauges: ...`, then `gauges.metrics(prefix)`.

    Args:
        model: whose evaluation is watched.
        gather: from a tensor of this process's rows to that of all processes', without rows that are there twice.
    """

    def __init__(self, model: TransferModel, gather: Callable[[Tensor], Tensor]):
        self.model = model
        self.gather = gather
        self.features: list[Tensor] = []

    def __enter__(self) -> CollapseGauges:
        self.features.clear()
        self.model.returns_features = True
        self._handle = self.model.register_forward_hook(self._read)
        return self

    def __exit__(self, *exception) -> None:
        self._handle.remove()
        self.model.returns_features = False

    def _read(self, model: TransferModel, inputs: tuple, output: TransferOutput) -> TransferOutput:
        """Keep the features and take them out of the output, which others expect without them."""
        features = self.gather(output.features)
        if sum(map(len, self.features)) < MOST_ROWS:
            self.features.append(features.float().cpu())
        return TransferOutput(loss=output.loss, logits=output.logits, losses=output.losses)

    def metrics(self, prefix: str) -> dict[str, float]:
        """`rank_me` and `channel_spread`, the latter as a share of 1 / sqrt(D); a collapse is told by a warning."""
        features = torch.cat(self.features)[:MOST_ROWS]
        rank = rank_me(features).item()
        spread = channel_spread(features).item() * features.shape[1] ** 0.5
        if is_collapsed(rank, spread):
            logger.warning(
                "the features have collapsed, and all rows look nearly alike: their directions spread by "
                f"{spread:.2g} of what even ones do (at least {LEAST_SPREAD} is sound), and their effective rank is "
                f"{rank:.2f} of {features.shape[1]} (at least {LEAST_RANK}). A lower learning rate, stronger views or "
                "another objective may help; `stop_on_collapse: true` ends such a training."
            )
        return {f"{prefix}_{name}": value for name, value in zip(GAUGES, (rank, spread), strict=True)}


def is_collapsed(rank: float, spread: float) -> bool:
    """Whether features of this rank, and this spread as a share of 1 / sqrt(D), are alike for nearly all rows."""
    return rank < LEAST_RANK or spread < LEAST_SPREAD
