"""Meta-learning domain generalisation: a step on some sources should help the others.

    total = F(theta) + beta G(theta - alpha dF(theta)),   F, G = mean task loss over meta-train and meta-test rows
    loss = total - mean over all labelled rows of the task loss

Every batch holds out environments drawn at random as meta-test. The second term turns the task loss, which the model
adds with weight 1, into the paper's. The gradient goes through dF; `first_order` leaves that part out.

Paper: Li et al., "Learning to Generalize: Meta-Learning for Domain Generalization", AAAI 2018,
https://huggingface.co/papers/1710.03463. beta 1 as in the DomainBed benchmark, whose form is the first-order one; the
inner learning rate is of the size of a usual one.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.environments import row_risks
from hf_transfer.functional.inner_loop import call, check_second_order, step_down, trainable, twice_differentiable
from hf_transfer.functional.keyword_checks import require_non_negative, require_positive
from hf_transfer.functional.sources import labelled_rows


class MLDG(Objective):
    """Meta-learning domain generalisation; the `domain` column numbers the environments.

    Args:
        inner_learning_rate: alpha, of the virtual step on the meta-train environments.
        beta: weight of the meta-test loss after that step.
        held_out: how many environments are meta-test in a batch; at least one other remains.
        first_order: leave out the second derivatives; one forward less.
        weight: factor of this term; leave it at 1, at which the total is exactly the paper's.

    Raises:
        ValueError: a keyword is out of its range; in training, the batch has no labels or no `domain`.
    """

    paper = "1710.03463"
    tasks = ANY_PROBLEM
    needs = frozenset({"logits", "inputs", "labels", "environments"})

    def __init__(
        self,
        inner_learning_rate: float = 1e-3,
        beta: float = 1.0,
        held_out: int = 1,
        first_order: bool = False,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_positive(inner_learning_rate=inner_learning_rate, held_out=held_out)
        require_non_negative(beta=beta)
        self.inner_learning_rate = inner_learning_rate
        self.beta = beta
        self.held_out = held_out
        self.first_order = first_order

    def build(self, context: BuildContext) -> None:
        context.require_rows("MLDG")
        if not self.first_order:
            check_second_order(context.model)

    def forward(self, view: View) -> Tensor:
        labelled = labelled_rows(view)
        environments = labelled.domain.unique()
        if len(environments) < 2:
            return no_loss(view)
        drawn = torch.randperm(len(environments))[: min(self.held_out, len(environments) - 1)]
        in_test = torch.isin(labelled.domain, environments[drawn.to(environments.device)])
        train, test = labelled.rows(~in_test), labelled.rows(in_test)
        inner, moved = self.virtual_step(train, view.model)
        outer = mean_risk(test, call(view.model, moved, test.inputs))
        return inner + self.beta * outer - mean_risk(labelled, labelled.logits)

    def virtual_step(self, train: View, model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        """The meta-train loss, and the trainable parameters by name after one step down its gradient."""
        parameters = trainable(model)
        # Fused attention has no second derivative, so the exact form runs the rows again with the plain one.
        exact = not self.first_order
        with twice_differentiable() if exact else nullcontext():
            logits = call(model, parameters, train.inputs) if exact else train.logits
            loss = mean_risk(train, logits)
        return loss, step_down(loss, parameters, self.inner_learning_rate, exact)


def mean_risk(rows: View, logits: Tensor) -> Tensor:
    """The mean task loss of labelled rows by logits [B, C] of them, a scalar."""
    return row_risks(logits, rows.labels, rows.problem_type, rows.label_smoothing).mean()
