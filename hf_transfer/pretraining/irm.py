"""Invariant risk minimisation: one classifier should be optimal in every environment at once.

    loss = (1/E) sum_e || d/dw R_e(w * logits) at w = 1 ||^2,   R_e = mean task loss of environment e

The derivative with respect to the scale w has a closed form, mean_b (sum_c p_bc z_bc - z_by) for cross entropy and
2 mean_b mean_c (z - y) z for squared error, so no second backward pass is needed. The penalty counts after the share
`starts_at` of the training.

Paper: Arjovsky et al., "Invariant Risk Minimization", https://huggingface.co/papers/1907.02893 (IRMv1). 500 of 5,000
steps without the penalty as in the DomainBed benchmark.
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.domain_adaptation.sources import labelled_rows
from hf_transfer.functional.environments import environment_means
from hf_transfer.functional.keyword_checks import require_share
from hf_transfer.objective import Objective, View, no_loss


def scale_gradients(logits: Tensor, labels: Tensor) -> Tensor:
    """d/dw of every row's loss at w * logits, w = 1; [B].

    Args:
        logits: [B, C].
        labels: [B] integers (cross entropy), or floats [B] or [B, C] (mean squared error).
    """
    if labels.is_floating_point():
        return 2.0 * ((logits - labels.reshape(logits.shape)) * logits).mean(dim=1)
    return (logits.softmax(dim=1) * logits).sum(dim=1) - logits.gather(1, labels.unsqueeze(1)).squeeze(1)


class IRM(Objective):
    """The gradient penalty of IRMv1; the `domain` column numbers the environments.

    Args:
        starts_at: share of the training before the penalty counts, in [0, 1).
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `starts_at` is out of its range; in training, the batch has no labels or no `domain`.
    """

    paper = "1907.02893"
    needs = frozenset({"labels", "environments", "global_batch"})

    def __init__(self, starts_at: float = 0.1, weight: float = 1.0):
        super().__init__(weight)
        require_share(starts_at=starts_at)
        self.starts_at = starts_at

    def forward(self, view: View) -> Tensor:
        labelled = labelled_rows(view)
        if view.progress < self.starts_at or not len(labelled.labels):
            return no_loss(view)
        _, gradients = environment_means(scale_gradients(labelled.logits, labelled.labels), labelled.domain)
        return gradients.square().mean()
