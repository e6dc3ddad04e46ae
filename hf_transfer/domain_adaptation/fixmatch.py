"""FixMatch: a confident prediction on a weakly augmented row is the label of its strongly augmented copy.

    loss = (1/B) sum_b 1[max p_b >= threshold] CE(strong_b, argmax p_b),   p = softmax(weak), detached

over the target rows. Paper: Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and
Confidence", NeurIPS 2020, https://huggingface.co/papers/2001.07685. Threshold .95 as in the paper; .9 is usual
between domains.
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.core.objective import Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.self_training import confident_cross_entropy, target_view_pair
from hf_transfer.functional.keyword_checks import require_share


class FixMatch(Objective):
    """Consistency of a strongly augmented target row with the confident label of its weakly augmented copy.

    Args:
        threshold: least probability of a pseudo-label, in [0, 1).
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `threshold` is out of its range; in training, the batch has no second view.
    """

    paper = "2001.07685"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"logits", "domain", "views"})

    def __init__(self, threshold: float = 0.95, weight: float = 1.0):
        super().__init__(weight)
        require_share(threshold=threshold)
        self.threshold = threshold

    def forward(self, view: View) -> Tensor:
        weak, strong = target_view_pair(view)
        if not len(weak.logits):
            return no_loss(view)
        return confident_cross_entropy(strong.logits, weak.logits, self.threshold)
