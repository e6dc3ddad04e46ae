"""Mutual information of input and prediction on the target: certain and diverse predictions.

    score = H(mean_i p_i) - mean_i H(p_i),   p = softmax(logits) of target rows
          = log C - KL(mean_i p_i || 1/C) - mean_i H(p_i)

Even predictions are the best where all classes are as frequent. Where the target's shares q are known to differ, q
stands in place of 1/C (ours; `label_shift: correct` estimates it).

Paper: Shi and Sha, "Information-Theoretical Learning of Discriminative Clusters for Unsupervised Domain Adaptation",
ICML 2012, https://huggingface.co/papers/1206.6438; as a validator: Musgrave et al., "Three New Validators and a
Large-Scale Benchmark Ranking for Unsupervised Domain Adaptation", https://huggingface.co/papers/2208.07360.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hf_transfer.functional import prediction_entropy
from hf_transfer.validators.rows import target_rows


def information_maximization(
    features: Tensor,
    logits: Tensor,
    domain: Tensor | None,
    labels: Tensor | None = None,
    prior: Tensor | None = None,
) -> float:
    """Entropy of the mean target prediction minus the mean entropy, in [0, log C]; with a prior at most log C.

    Args:
        features: [N, D], not read.
        logits: [N, C].
        domain: [N], 1 = target, or None where all rows are.
        labels: not read.
        prior: [C] > 0, the class shares that the predictions should have in place of even ones.

    Raises:
        ValueError: there is no target row, or a share of the prior is not positive.
    """
    logits = target_rows(logits, domain).double()
    mean_prediction = logits.softmax(dim=1).mean(dim=0)
    spread = torch.special.entr(mean_prediction).sum()
    if prior is not None:
        if not (prior > 0).all():
            raise ValueError(f"`prior` should hold positive class shares, got {prior.tolist()}.")
        prior = (prior / prior.sum()).to(logits)
        spread = math.log(len(prior)) + spread + (mean_prediction * prior.log()).sum()
    return (spread - prediction_entropy(logits).mean()).item()
