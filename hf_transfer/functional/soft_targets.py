"""Predictions as targets: the divergence of a model's predictions from a teacher's, and the mean of several teachers.

    divergence = E_x KL( softmax(z0 / T) || softmax(z / T) )

Of a model of several labels it is that of Bernoulli distributions, of a regression that of Gaussians of variance T^2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_transfer.core.task_loss import MULTI_LABEL, REGRESSION, SINGLE_LABEL


def distillation(
    logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0, problem_type: str | None = None
) -> Tensor:
    """Mean of KL(teacher / T || logits / T) over the rows, a scalar; the teacher is detached.

    Of two categorical distributions for classes; of several labels the sum of their Bernoulli ones; of numbers, the
    means of Gaussians of variance T^2, KL = sum_c ((z0 - z)_c / T)^2 / 2.

    Args:
        logits: [B, C].
        teacher_logits: [B, C].
        temperature: T.
        problem_type: of the outputs; a regression for a single one, else classes, when left out.
    """
    problem_type = problem_type or (REGRESSION if logits.shape[1] == 1 else SINGLE_LABEL)
    logits, teacher_logits = logits / temperature, teacher_logits.detach() / temperature
    if problem_type == REGRESSION:
        return (logits - teacher_logits).square().sum(dim=1).mean() / 2
    if problem_type == MULTI_LABEL:  # each label is a choice between a logit and 0
        logits, teacher_logits = (torch.stack([z, torch.zeros_like(z)], dim=-1) for z in (logits, teacher_logits))
    log_p, log_q = logits.log_softmax(dim=-1), teacher_logits.log_softmax(dim=-1)
    # a class that the teacher rules out (-inf) adds 0 log 0 = 0
    gap = (log_q - log_p).masked_fill(log_q == -torch.inf, 0.0)
    return (log_q.exp() * gap).flatten(start_dim=1).sum(dim=1).mean()


def mean_logits(
    logits: Sequence[Tensor], weights: Tensor, temperature: float = 1.0, problem_type: str | None = None
) -> Tensor:
    """Logits [B, C] whose probabilities at temperature T are the weighted mean of those of several models at T.

        softmax(z / T) = sum_k w_k softmax(z_k / T)

    Of several labels the same holds of their sigmoids; of numbers z = sum_k w_k z_k.

    Args:
        logits: [B, C] of each model.
        weights: [K], which sum to 1.
        temperature: T.
        problem_type: as in `distillation`.
    """
    stacked = torch.stack(list(logits))
    weights = weights.to(stacked).reshape(-1, 1, 1)
    problem_type = problem_type or (REGRESSION if stacked.shape[-1] == 1 else SINGLE_LABEL)
    if problem_type == REGRESSION:
        return (weights * stacked).sum(dim=0)
    scaled, share = stacked / temperature, weights.log()
    if problem_type == SINGLE_LABEL:
        return temperature * (share + scaled.log_softmax(dim=-1)).logsumexp(dim=0)
    yes, no = ((share + torch.nn.functional.logsigmoid(sign * scaled)).logsumexp(dim=0) for sign in (1, -1))
    return temperature * (yes - no)
