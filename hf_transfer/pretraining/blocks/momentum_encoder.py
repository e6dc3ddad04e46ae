"""A momentum encoder: the moving average of a model, and what reads its features.

    f' <- m f' + (1 - m) f

The average is a FrozenCopy: in evaluation mode, so that its batch norms use their running statistics, which are copied
from the model, and no row of a batch learns from its keys about the others. This does what shuffling the rows between
processes does in MoCo, on one process too: Cai et al., "Exponential Moving Average Normalization for Self-supervised
and Semi-supervised Learning", CVPR 2021, https://huggingface.co/papers/2101.08482.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hf_transfer.core.frozen_copy import FrozenCopy
from hf_transfer.core.objective import BuildContext
from hf_transfer.modeling.readouts import choose_readout


class MomentumEncoder(nn.Module):
    """The moving average of a model.

    Args:
        context: of the objective that makes it; the average begins with the model as it is now.
        momentum: m in [0, 1]; None where `update` is told one every time.
    """

    def __init__(self, context: BuildContext, momentum: float | None = None):
        super().__init__()
        self.average = FrozenCopy(context.model, momentum)
        self.readout = (context.readout or choose_readout(context.model)).of(self.average.module)

    @torch.no_grad()
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The features [B, D] of a batch of model inputs, float32, without gradients."""
        with self.readout:
            outputs = self.average(**inputs)
        return self.readout.read(outputs, inputs).features

    def update(self, model: nn.Module, momentum: float | None = None) -> None:
        """One step of the moving average towards `model`."""
        self.average.update(model, momentum)
