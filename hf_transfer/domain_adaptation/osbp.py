"""Open-set adaptation by backpropagation: the last class is "unknown", and target rows settle on one side of it.

    loss = E_target[-t log p_u - (1 - t) log(1 - p_u)],   p_u = softmax(head(R(f)))_last

The head wants p_u = t for every target row; the features, behind the gradient reversal R, push each row away from t,
to known or to unknown. Give the model one class more than the source has: `num_labels = known + 1`, unknown last.

Paper: Saito et al., "Open Set Domain Adaptation by Backpropagation", ECCV 2018,
https://huggingface.co/papers/1804.10427. t = .5 as in the paper. Its released code reverses with a coefficient of 1
from the first step on, `warm_start=None` here; ours grows to it, because a random head has no boundary to push from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.functional import gradient_reversal, warm_start_coefficient
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.functional.margin_disparity import log_one_minus_probability
from hf_transfer.functional.processes import unit_share
from hf_transfer.modeling.anatomy import apply_head


def unknown_class_loss(logits: Tensor, unknown: float = 0.5) -> Tensor:
    """Binary cross entropy of the last class's probability against `unknown`, a scalar.

    Args:
        logits: [B, C], the last class is the unknown one.
        unknown: t, in (0, 1).
    """
    last = torch.full_like(logits[:, 0], logits.shape[1] - 1, dtype=torch.long)
    log_known = log_one_minus_probability(logits, last)
    return -(unknown * logits.log_softmax(dim=1)[:, -1] + (1.0 - unknown) * log_known).mean()


class OSBP(Objective):
    """Adversarial boundary around the known classes, for a target with classes of its own.

    Args:
        unknown: t, the probability of "unknown" that the head is trained to give target rows, in (0, 1).
        max_reversal: final coefficient of the reversed gradient.
        warm_start: how fast the coefficient grows with the progress; None for `max_reversal` throughout.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; at `build`, the model has fewer than three classes.
    """

    paper = "1804.10427"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"features", "domain"})
    label_space = "open"

    def __init__(
        self,
        unknown: float = 0.5,
        max_reversal: float = 1.0,
        warm_start: float | None = 10.0,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        if not 0 < unknown < 1:
            raise ValueError(f"`unknown` should be in (0, 1), got {unknown}.")
        require_positive(max_reversal=max_reversal)
        if warm_start is not None:
            require_positive(warm_start=warm_start)
        self.unknown = unknown
        self.max_reversal = max_reversal
        self.warm_start = warm_start

    def build(self, context: BuildContext) -> None:
        if context.num_labels < 3:
            given = f"got num_labels={context.num_labels}"
            raise ValueError(f"OSBP needs at least 2 known classes and the unknown one, {given}.")

    def forward(self, view: View) -> Tensor:
        target = view.target
        if not len(target.features):
            return no_loss(view)
        coefficient = self.max_reversal
        if self.warm_start is not None:
            coefficient = warm_start_coefficient(view.progress, self.max_reversal, self.warm_start)
        logits = apply_head(view.model, gradient_reversal(target.features, coefficient))
        return unit_share(target) * unknown_class_loss(logits, self.unknown)
