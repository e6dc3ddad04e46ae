"""A momentum encoder: the moving average of a model, and what reads its features.

    f' <- m f' + (1 - m) f

Its batch norms take the statistics of the batch, as those of the model in training do and as released for MoCo; its
dropout rests. (Running statistics belong to the present weights and not to their average: with them, on MNIST-5k, a
ResNet learned nothing by MoCo.) Rows are not shuffled between processes: a model without batch norms leaves a query no
hint of the key's batch.

Paper: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
https://huggingface.co/papers/1911.05722.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hf_transfer.core.frozen_copy import FrozenCopy
from hf_transfer.core.objective import BuildContext
from hf_transfer.modeling.anatomy import moving_batch_norms
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
        self._batch_norms = moving_batch_norms(context.model, self.average.module)

    @torch.no_grad()
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The features [B, D] of a batch of model inputs, float32, without gradients."""
        for norm in self._batch_norms:
            norm.training = True
        with self.readout:
            outputs = self.average(**inputs)
        return self.readout.read(outputs, inputs).features

    def update(self, model: nn.Module, momentum: float | None = None) -> None:
        """One step of the moving average towards `model`."""
        self.average.update(model, momentum)
