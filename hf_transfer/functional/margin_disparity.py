"""The margin disparity discrepancy between two domains, which an objective, a divergence and a validator count.

    E_target log(1 - softmax(f')_f) - gamma E_source cross_entropy(f', f)

Paper: Zhang et al., "Bridging Theory and Algorithm for Domain Adaptation", ICML 2019,
https://huggingface.co/papers/1904.05801
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def log_one_minus_probability(logits: Tensor, classes: Tensor) -> Tensor:
    """log(1 - softmax(logits)_class) without cancellation: the log of the mass of all other classes.

    Args:
        logits: [B, C], C >= 2.
        classes: [B].

    Returns:
        [B].
    """
    others = logits.scatter(1, classes.unsqueeze(1), float("-inf"))
    return torch.logsumexp(others, dim=1) - torch.logsumexp(logits, dim=1)


def margin_disparity_discrepancy(
    source_logits: Tensor,
    source_adversarial_logits: Tensor,
    target_logits: Tensor,
    target_adversarial_logits: Tensor,
    margin: float = 4.0,
) -> Tensor:
    """The disparity of an adversarial classifier from the classifier, target minus source; a scalar, at most 0.

    Args:
        source_logits, target_logits: [B, C] of the classifier; only their argmax is used.
        source_adversarial_logits, target_adversarial_logits: [B, C] of the adversarial classifier.
        margin: gamma > 0, weight of the agreement on the source.
    """
    source_term = F.cross_entropy(source_adversarial_logits, source_logits.argmax(dim=1))
    target_term = log_one_minus_probability(target_adversarial_logits, target_logits.argmax(dim=1)).mean()
    return target_term - margin * source_term
