"""Soft neighbourhood density of the target predictions.

    score = mean_i H(softmax_j(<u_i, u_j> / T), j != i),   u_i = p_i / ||p_i||,  p = softmax(logits) of target rows

Entropy of each row's similarities to the others. It is high where every row has many close neighbours: dense clusters,
which a shift breaks up.

Paper: Saito et al., "Tune it the Right Way: Unsupervised Validation of Domain Adaptation via Soft Neighborhood
Density", ICCV 2021, https://huggingface.co/papers/2108.10860. T = .05 as in the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transfer.functional import prediction_entropy
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.validators.rows import target_rows

CHUNK = 1024
"""Rows whose similarities to all others are held at once."""


def snd(
    features: Tensor,
    logits: Tensor,
    domain: Tensor | None,
    labels: Tensor | None = None,
    temperature: float = 0.05,
) -> float:
    """Mean entropy of the neighbourhoods of the target predictions, in [0, log(N_t - 1)].

    Args:
        features: [N, D], not read.
        logits: [N, C].
        domain: [N], 1 = target, or None where all rows are.
        labels: not read.
        temperature: T; small values look at close neighbours only.

    Raises:
        ValueError: there are fewer than two target rows, or `temperature` is not positive.
    """
    require_positive(temperature=temperature)
    units = F.normalize(target_rows(logits, domain).double().softmax(dim=1), dim=1)
    count = len(units)
    if count < 2:
        raise ValueError("soft neighbourhood density compares target rows with each other and there is only one.")
    total = 0.0
    for start in range(0, count, CHUNK):
        similarities = units[start : start + CHUNK] @ units.T / temperature  # [chunk, N_t]
        rows = torch.arange(len(similarities), device=units.device)
        others = torch.ones_like(similarities, dtype=torch.bool)
        others[rows, rows + start] = False
        total += prediction_entropy(similarities[others].reshape(-1, count - 1)).sum().item()
    return total / count
