"""Mean teacher: target predictions agree with those of the model's moving average on another augmentation.

    loss = a(progress) (1/B) sum_b 1[max q_b >= threshold] (1/C) ||softmax(student(x''_b)) - q_b||^2
    q = softmax(teacher(x')),   teacher <- m teacher + (1 - m) student,   a = min(1, progress / ramp_until)

x' and x'' are the two augmented copies of a target row. m = min(1 - 1/(t + 1), momentum) after t steps, so that the
random start is forgotten quickly.

Paper: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017,
https://huggingface.co/papers/1703.01780 (momentum .999, squared error, threshold 0). `SelfEnsembling` is its form for
domain adaptation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hf_transfer.core.frozen_copy import FrozenCopy
from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.self_training import target_view_pair
from hf_transfer.functional.keyword_checks import require_positive, require_share


class MeanTeacher(Objective):
    """Consistency of the target predictions with an averaged teacher.

    Args:
        momentum: of the moving average, in [0, 1).
        threshold: least probability of a teacher's prediction that counts, in [0, 1).
        ramp_until: share of the training after which the term has its full weight.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; in training, the batch has no second view.
    """

    paper = "1703.01780"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"logits", "inputs", "domain", "views"})

    def __init__(self, momentum: float = 0.999, threshold: float = 0.0, ramp_until: float = 0.4, weight: float = 1.0):
        super().__init__(weight)
        require_share(momentum=momentum, threshold=threshold)
        require_positive(ramp_until=ramp_until)
        self.momentum = momentum
        self.threshold = threshold
        self.ramp_until = ramp_until

    def build(self, context: BuildContext) -> None:
        self.teacher = FrozenCopy(context.model, self.momentum)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def compared(self, view: View) -> tuple[Tensor, Tensor, Tensor]:
        """Of the target rows the student's and the teacher's probabilities [B, C], and whether these count, [B]."""
        weak, strong = target_view_pair(view)
        with torch.no_grad():
            expected = self.teacher(**weak.inputs).logits.float().softmax(dim=1)
        return strong.logits.softmax(dim=1), expected, expected.max(dim=1).values >= self.threshold

    def forward(self, view: View) -> Tensor:
        if not len(view.target.logits):
            return no_loss(view)
        predicted, expected, confident = self.compared(view)
        errors = (predicted - expected).square().mean(dim=1)
        return min(1.0, view.progress / self.ramp_until) * (errors * confident).mean()

    def after_step(self, model: nn.Module) -> None:
        self.steps += 1
        self.teacher.update(model, min(1.0 - 1.0 / (self.steps.item() + 1), self.momentum))
