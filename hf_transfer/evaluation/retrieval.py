"""Retrieval of rows of the same class by their features: every row asks all others.

    AP_q = (1/R_q) sum_k precision_q(k) [the k-th nearest row is of q's class],   map = mean_q AP_q
    rank_k = share of the q for which one of the k nearest rows is of q's class

Near is a large cosine of features; R_q counts the other rows of q's class, and a q with R_q = 0 does not ask. The
figures of person re-identification: Zheng et al., ICCV 2015, https://doi.org/10.1109/ICCV.2015.133 (there rows of
several cameras; here the gallery is all other rows).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor

from hf_transfer.evaluation.few_shot import features_and_labels
from hf_transfer.training.trainer import TransferTrainer

RANKS = (1, 5, 10)
QUERIES_AT_ONCE = 512


def retrieval_metrics(features: Tensor, labels: Tensor) -> dict[str, float]:
    """`map`, `rank_1`, `rank_5` and `rank_10` of all rows, and how many ask (`queries`).

    Args:
        features: [N, D].
        labels: [N] classes.

    Raises:
        ValueError: features and labels of other lengths, or no class has two rows.
    """
    if features.ndim != 2 or len(features) != len(labels):
        raise ValueError(f"`features` should be [{len(labels)}, width], one a label, got {list(features.shape)}.")
    counts = labels.unique(return_inverse=True, return_counts=True)
    asking = (counts[2][counts[1]] > 1).nonzero()[:, 0]
    if not len(asking):
        raise ValueError("no class has two rows, so that none can be found by another.")
    units = F.normalize(features.double(), dim=1)
    precisions, ranks = [], []
    for places in asking.split(QUERIES_AT_ONCE):
        similarity = units[places] @ units.T
        similarity.scatter_(1, places.unsqueeze(1), -torch.inf)  # a row does not find itself
        order = similarity.argsort(dim=1, descending=True, stable=True)[:, :-1]
        hits = (labels[order] == labels[places].unsqueeze(1)).double()
        precision = hits.cumsum(dim=1) / torch.arange(1, hits.shape[1] + 1, dtype=torch.float64)
        precisions.append((precision * hits).sum(dim=1) / hits.sum(dim=1))
        ranks.append(hits.argmax(dim=1))  # of the first one of the class
    first = torch.cat(ranks)
    found = {f"rank_{rank}": (first < rank).double().mean().item() for rank in RANKS}
    return {"map": torch.cat(precisions).mean().item(), **found, "queries": len(asking)}


def evaluate_retrieval(trainer: TransferTrainer, dataset: Dataset) -> dict[str, float]:
    """`retrieval_metrics` of the features that the trainer's model gives.

    Args:
        trainer: around a model with a linear head, whose input the features are; the head itself is not used.
        dataset: rows as model inputs with one class each, which need not be the model's.
    """
    return retrieval_metrics(*features_and_labels(trainer, dataset, "retrieval"))
