"""Learning without forgetting: the old head, on the moving features, keeps giving its old answers.

    loss = E_x KL( softmax(z0 / T) || softmax(z / T) ),   z0 = head0(f0(x)), z = head(f(x))

f0 and head0 are the starting model and its pre-trained head, frozen; head starts as head0 and is trained along.
Without a `source_head` the model's own logits are compared, which is right where old and new classes are the same.
KL differs from the paper's cross entropy by a constant and is 0 at the start. Of a model of several labels or of a
regression it is that of Bernoulli distributions or of Gaussians; a `source_head` is always one of classes, or of a
single number.

Paper: Li and Hoiem, "Learning without Forgetting", ECCV 2016, https://huggingface.co/papers/1606.09282. T = 2 as in
the paper, weight 4 as in later releases; no factor T^2.
"""

from __future__ import annotations

from torch import Tensor, nn

from hf_transfer.core.objective import BuildContext, Objective, View
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.functional.processes import unit_share
from hf_transfer.functional.soft_targets import distillation as distillation
from hf_transfer.task_adaptation.source_head import copy_source_head


class LwF(Objective):
    """Distillation from the starting model through its pre-trained head.

    Args:
        temperature: T > 0.
        source_head: the pre-trained head, or the folder or Hub name of the pre-trained model; None compares the
            model's own logits.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `temperature` is not positive; at `build`, the head does not fit the features.
    """

    paper = "1606.09282"
    tasks = ANY_PROBLEM
    needs = frozenset({"logits", "teacher"})

    def __init__(self, temperature: float = 2.0, source_head: nn.Linear | str | None = None, weight: float = 4.0):
        super().__init__(weight)
        require_positive(temperature=temperature)
        self.temperature = temperature
        # In a tuple, so that the module given is not registered as this objective's own.
        self._given_head = (source_head,)
        if source_head is not None:
            self.needs = self.needs | {"features"}

    def build(self, context: BuildContext) -> None:
        (given,) = self._given_head
        self.old_head = self.frozen_head = None
        if given is not None:
            self.old_head = copy_source_head(given, context.feature_dim)
            self.frozen_head = copy_source_head(given, context.feature_dim).requires_grad_(False)

    def forward(self, view: View) -> Tensor:
        if self.old_head is None:
            loss = distillation(view.logits, view.teacher.logits, self.temperature, view.problem_type)
        else:
            teacher_logits = self.frozen_head(view.teacher.features)
            loss = distillation(self.old_head(view.features), teacher_logits, self.temperature)
        return unit_share(view) * loss
