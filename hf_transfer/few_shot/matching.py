"""Matching networks: a query has the label of the support rows, as much of each as it attends to that row.

    p(c | x) = sum_{i in support of c} a_i(x),   a(x) = softmax_i( cos(f(x), f(x_i)) )

This is the form without full context embeddings, in which f is the backbone alone.

Paper: Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016,
https://huggingface.co/papers/1606.04080. 15 queries a class is the usual test.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.few_shot.episodic import MetricObjective


class Matching(MetricObjective):
    """Cross entropy of the attention that a class's support rows get; keywords as `EpisodicObjective`."""

    paper = "1606.04080"
    tasks = frozenset({SINGLE_LABEL})

    @staticmethod
    def log_probabilities(support: Tensor, queries: Tensor) -> Tensor:
        similarity = F.normalize(queries, dim=1) @ F.normalize(support.flatten(0, 1), dim=1).T  # [Q, ways * shots]
        return similarity.log_softmax(dim=1).unflatten(1, support.shape[:2]).logsumexp(dim=2)
