"""Projection and prediction heads: linear layers with batch normalisation and ReLU between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn


def projection_head(
    widths: Sequence[int], *, hidden_norm: bool = True, last_norm: Literal["affine", "plain"] | None = None
) -> nn.Sequential:
    """A multi-layer perceptron, [B, widths[0]] -> [B, widths[-1]].

    Batch norms always take the statistics of the batch and keep no running ones: heads are used in training alone, and
    that of a momentum encoder normalises its own batch too. A linear layer before a batch norm has no bias.

    Args:
        widths: of the input, the hidden layers and the output.
        hidden_norm: a batch norm after every hidden layer.
        last_norm: a batch norm after the last layer, "affine" with a gain and a shift, "plain" without.
    """
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(pairwise(widths)):
        is_last = index == len(widths) - 2
        norm = last_norm if is_last else "affine" if hidden_norm else None
        layers.append(nn.Linear(before, after, bias=norm is None))
        if norm is not None:
            layers.append(nn.BatchNorm1d(after, affine=norm == "affine", track_running_stats=False))
        if not is_last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
