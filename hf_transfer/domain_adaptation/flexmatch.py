"""FlexMatch: FixMatch with a threshold of each class that follows how well the class is learned.

    T_c = threshold * beta_c / (2 - beta_c),   beta_c = n_c / max(max_c' n_c', N - sum_c' n_c')

n_c counts the rows, among the last N target rows, that were confidently (p >= threshold) predicted as c. A class that
is seldom predicted gets a lower threshold; while most rows are not confident at all, every threshold is low.
A model that starts from random weights would make its first guesses its labels: give the run an `objective_warmup`.

Paper: Zhang et al., "FlexMatch: Boosting Semi-Supervised Learning with Curriculum Pseudo Labeling", NeurIPS 2021,
https://huggingface.co/papers/2110.08263. The paper keeps the latest prediction of every unlabelled row of the data
set; a batch carries no row numbers, so here the latest N rows stand for the data set.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.self_training import confident_cross_entropy, target_view_pair
from hf_transfer.functional.keyword_checks import require_positive, require_share


class FlexMatch(Objective):
    """FixMatch on the target with curriculum thresholds.

    Args:
        threshold: the threshold of a class that is learned as well as any, in [0, 1).
        memory: N, how many of the latest target rows the thresholds are counted over.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; in training, the batch has no second view.
    """

    paper = "2110.08263"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"logits", "domain", "views", "global_batch"})

    def __init__(self, threshold: float = 0.95, memory: int = 2048, weight: float = 1.0):
        super().__init__(weight)
        require_share(threshold=threshold)
        require_positive(memory=memory)
        self.threshold = threshold
        self.memory = memory

    def build(self, context: BuildContext) -> None:
        self.num_labels = context.num_labels
        # Class `num_labels` stands for "not confident", where every row starts.
        self.register_buffer("recent", torch.full((self.memory,), context.num_labels))

    def class_thresholds(self) -> Tensor:
        """T, [C], each in [0, threshold]."""
        *counts, unlearned = torch.bincount(self.recent, minlength=self.num_labels + 1)
        counts = torch.stack(counts)
        status = counts / torch.maximum(counts.max(), unlearned)
        return self.threshold * status / (2.0 - status)

    @torch.no_grad()
    def remember(self, logits: Tensor) -> None:
        """Enter the predictions [B, C] of the latest target rows."""
        confidence, classes = logits.softmax(dim=1).max(dim=1)
        latest = torch.where(confidence >= self.threshold, classes, self.num_labels)
        self.recent.copy_(torch.cat([self.recent, latest])[-self.memory :])

    def forward(self, view: View) -> Tensor:
        weak, strong = target_view_pair(view)
        if not len(weak.logits):
            return no_loss(view)
        loss = confident_cross_entropy(strong.logits, weak.logits, self.class_thresholds())
        self.remember(weak.logits)
        return loss
