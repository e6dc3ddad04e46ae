"""Batch norms that detectors freeze in their backbone: of weights that were never trained they normalise nothing."""

from __future__ import annotations

from torch import nn


def untrained_frozen_norms(model: nn.Module) -> int:
    """How many frozen batch norms have the statistics that they began with, mean 0 and variance 1.

    transformers replaces the batch norms of a detector's backbone by a class of its own for each family, with buffers
    and without parameters.

    Args:
        model: of random or of trained weights.
    """
    frozen = [one for one in model.modules() if type(one).__name__.endswith("FrozenBatchNorm2d")]
    return sum(bool((one.running_mean == 0).all() and (one.running_var == 1).all()) for one in frozen)
