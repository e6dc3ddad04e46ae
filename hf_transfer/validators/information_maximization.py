"""Mutual information of input and prediction on the target: certain and diverse predictions.

    score = H(mean_i p_i) - mean_i H(p_i),   p = softmax(logits) of target rows

Paper: Shi and Sha, "Information-Theoretical Learning of Discriminative Clusters for Unsupervised Domain Adaptation",
ICML 2012, https://huggingface.co/papers/1206.6438; as a validator: Musgrave et al., "Three New Validators and a
Large-Scale Benchmark Ranking for Unsupervised Domain Adaptation", https://huggingface.co/papers/2208.07360.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_transfer.functional import prediction_entropy
from hf_transfer.validators.rows import target_rows


def information_maximization(
    features: Tensor, logits: Tensor, domain: Tensor | None, labels: Tensor | None = None
) -> float:
    """Entropy of the mean target prediction minus the mean entropy, in [0, log C].

    Args:
        features: [N, D], not read.
        logits: [N, C].
        domain: [N], 1 = target, or None where all rows are.
        labels: not read.

    Raises:
        ValueError: there is no target row.
    """
    logits = target_rows(logits, domain).double()
    mean_prediction = logits.softmax(dim=1).mean(dim=0)
    return (torch.special.entr(mean_prediction).sum() - prediction_entropy(logits).mean()).item()
