"""Pseudo-labels: the model's own confident target predictions as labels.

    loss = a (1/B) sum_b 1[max p_b >= threshold] CE(logits_b, argmax p_b),   a = min(1, progress / ramp_until)

Paper: Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks", ICML
workshops 2013, https://www.kaggle.com/blobs/download/forum-message-attachment-files/746/pseudo_label_final.pdf.
It ramps the term up linearly; the threshold of .95 came with later practice (0 gives the paper's method).
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.core.objective import Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.self_training import confident_cross_entropy
from hf_transfer.functional.keyword_checks import require_positive, require_share


class PseudoLabel(Objective):
    """Cross entropy against the model's own confident predictions on the target.

    Args:
        threshold: least probability of a pseudo-label, in [0, 1).
        ramp_until: share of the training after which the term has its full weight.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range.
    """

    paper = "https://www.kaggle.com/blobs/download/forum-message-attachment-files/746/pseudo_label_final.pdf"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"logits", "domain"})

    def __init__(self, threshold: float = 0.95, ramp_until: float = 0.4, weight: float = 1.0):
        super().__init__(weight)
        require_share(threshold=threshold)
        require_positive(ramp_until=ramp_until)
        self.threshold = threshold
        self.ramp_until = ramp_until

    def forward(self, view: View) -> Tensor:
        target = view.target
        if not len(target.logits):
            return no_loss(view)
        ramp = min(1.0, view.progress / self.ramp_until)
        return ramp * confident_cross_entropy(target.logits, target.logits, self.threshold)
