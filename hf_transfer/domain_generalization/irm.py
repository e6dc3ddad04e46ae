"""Invariant risk minimisation: one classifier should be optimal in every environment at once.

    loss = (1/E) sum_e g_e g'_e,   g_e, g'_e = d/dw R_e(w * logits) at w = 1, each on half of the environment's rows

R_e is the mean task loss of environment e; the rows of an environment go to the two halves in turn. The product of two
independent halves is an unbiased estimate of the squared gradient: in expectation it is 0 for an invariant classifier,
where the square of one gradient is its variance. It may be negative on a batch.

The derivative with respect to the scale w has a closed form, mean_b (sum_c p_bc z_bc - z_by) for cross entropy,
mean_b mean_c (sigmoid(z) - y) z for several labels and 2 mean_b mean_c (z - y) z for squared error, so no second
backward pass is needed. The penalty counts after the share `starts_at` of the training.

Paper: Arjovsky et al., "Invariant Risk Minimization", https://huggingface.co/papers/1907.02893 (IRMv1), in the form of
the DomainBed benchmark. There the penalty has weight 1 in the first 500 of 5,000 steps and 100 (lambda) afterwards,
when Adam starts anew. Here it has none in the first tenth and `weight` afterwards, 1 unless you say otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_transfer.core.objective import Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM, REGRESSION, SINGLE_LABEL, problem_type_of_outputs
from hf_transfer.functional.keyword_checks import require_share
from hf_transfer.functional.sources import labelled_rows


def scale_gradients(
    logits: Tensor, labels: Tensor, problem_type: str | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """d/dw of every row's loss at w * logits, w = 1; [B].

    Args:
        logits: [B, C].
        labels: [B] or [B, C].
        problem_type: of the run; told from the labels when left out.
        label_smoothing: of the run.
    """
    problem_type = problem_type or problem_type_of_outputs(logits, labels)
    if problem_type == SINGLE_LABEL:
        is_masked = logits == -torch.inf  # a masked class has no mass
        finite = logits.masked_fill(is_masked, 0.0)
        own = logits.gather(1, labels.long().unsqueeze(1)).squeeze(1)
        expected = (1 - label_smoothing) * own
        if label_smoothing:
            expected = expected + label_smoothing * finite.sum(dim=1) / (~is_masked).sum(dim=1)
        return (logits.softmax(dim=1) * finite).sum(dim=1) - expected
    targets = labels.reshape(logits.shape).to(logits.dtype)
    errors = 2.0 * (logits - targets) if problem_type == REGRESSION else logits.sigmoid() - targets
    return (errors * logits).mean(dim=1)


def invariance_penalty(gradients: Tensor, environment: Tensor) -> Tensor | None:
    """Mean over the environments of the product of the mean gradients of their two halves; None without any.

    Args:
        gradients: [B] of the rows.
        environment: [B]; those with a single row are left out.
    """
    own = [gradients[environment == number] for number in environment.unique()]
    products = [rows[::2].mean() * rows[1::2].mean() for rows in own if len(rows) >= 2]
    return torch.stack(products).mean() if products else None


class IRM(Objective):
    """The gradient penalty of IRMv1; the `domain` column numbers the environments.

    Args:
        starts_at: share of the training before the penalty counts, in [0, 1).
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `starts_at` is out of its range; in training, the batch has no labels or no `domain`.
    """

    paper = "1907.02893"
    tasks = ANY_PROBLEM
    needs = frozenset({"logits", "labels", "environments", "global_batch"})
    rows_per_domain = 2

    def __init__(self, starts_at: float = 0.1, weight: float = 1.0):
        super().__init__(weight)
        require_share(starts_at=starts_at)
        self.starts_at = starts_at

    def forward(self, view: View) -> Tensor:
        labelled = labelled_rows(view)
        if view.progress < self.starts_at or not len(labelled.labels):
            return no_loss(view)
        gradients = scale_gradients(labelled.logits, labelled.labels, view.problem_type, view.label_smoothing)
        penalty = invariance_penalty(gradients, labelled.domain)
        return no_loss(view) if penalty is None else penalty
