"""Batch norms that detectors freeze in their backbone.

transformers replaces the batch norms of a detector's backbone by a class of its own for each family, with buffers and
without parameters. Of weights that were never trained they normalise nothing; of others they add less to the variance
than some nets were trained with (EfficientNet: 1e-3), and channels of next to no variance come out up to ten times as
large.
"""

from __future__ import annotations

import torch
from torch import nn

FROZEN_EPS = 1e-5
"""What transformers' frozen batch norms add to the variance, whatever the norms added that they replace."""


def untrained_frozen_norms(model: nn.Module) -> int:
    """How many frozen batch norms have the statistics that they began with, mean 0 and variance 1.

    Args:
        model: of random or of trained weights.
    """
    frozen = frozen_norms(model).values()
    return sum(bool((one.running_mean == 0).all() and (one.running_var == 1).all()) for one in frozen)


@torch.no_grad()
def as_trained(backbone: nn.Module, trained: nn.Module) -> None:
    """Let the frozen norms of a backbone give what the batch norms gave that their statistics are from.

    Args:
        backbone: with the weights of `trained`; the variances of its frozen norms are changed.
        trained: the same net with its own batch norms.
    """
    for name, norm in frozen_norms(backbone).items():
        norm.running_var += getattr(trained.get_submodule(name), "eps", FROZEN_EPS) - FROZEN_EPS


def frozen_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The frozen batch norms of a model by their names."""
    return {name: one for name, one in model.named_modules() if type(one).__name__.endswith("FrozenBatchNorm2d")}
