"""Prototypical networks: a class is the mean of its support rows, and a query belongs to the nearest one.

    p(c | x) = softmax_c( - ||f(x) - mean_{i in support of c} f(x_i)||^2 )

Paper: Snell et al., "Prototypical Networks for Few-shot Learning", NeurIPS 2017,
https://huggingface.co/papers/1703.05175. Squared Euclidean distance and 15 queries a class as in the paper; 5 ways and
5 shots is its most reported test.
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.few_shot.episodic import MetricObjective


class Prototypical(MetricObjective):
    """Cross entropy over the distances to the classes' mean features; keywords as `EpisodicObjective`."""

    paper = "1703.05175"
    tasks = frozenset({SINGLE_LABEL})

    @staticmethod
    def log_probabilities(support: Tensor, queries: Tensor) -> Tensor:
        gaps = queries.unsqueeze(1) - support.mean(dim=1)
        return (-gaps.square().sum(dim=2)).log_softmax(dim=1)
