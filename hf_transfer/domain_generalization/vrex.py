"""Risk extrapolation: the variance of the risks over the training environments.

    loss = (1/E) sum_e (R_e - mean R)^2,   R_e = mean task loss of environment e

It counts after the share `starts_at` of the training. Paper: Krueger et al., "Out-of-Distribution Generalization via
Risk Extrapolation", ICML 2021, https://huggingface.co/papers/2003.00688. Weight 10 as in the DomainBed benchmark,
where the penalty has weight 1 in the first 500 of 5,000 steps and 10 afterwards, when Adam starts anew; here it has
none before.
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.core.objective import Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.environments import environment_means, row_risks
from hf_transfer.functional.keyword_checks import require_share
from hf_transfer.functional.sources import labelled_rows


class VREx(Objective):
    """Variance of the environments' risks; the `domain` column numbers the environments.

    Args:
        starts_at: share of the training before the penalty counts, in [0, 1).
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `starts_at` is out of its range; in training, the batch has no labels or no `domain`.
    """

    paper = "2003.00688"
    tasks = ANY_PROBLEM
    needs = frozenset({"logits", "labels", "environments", "global_batch"})

    def __init__(self, starts_at: float = 0.1, weight: float = 10.0):
        super().__init__(weight)
        require_share(starts_at=starts_at)
        self.starts_at = starts_at

    def forward(self, view: View) -> Tensor:
        labelled = labelled_rows(view)
        if view.progress < self.starts_at or not len(labelled.labels):
            return no_loss(view)
        losses = row_risks(labelled.logits, labelled.labels, view.problem_type, view.label_smoothing)
        _, risks = environment_means(losses, labelled.domain)
        return risks.var(correction=0)
