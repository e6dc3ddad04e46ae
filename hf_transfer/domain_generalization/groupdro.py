"""Group distributionally robust optimisation: the environments with a high risk get a high weight.

    q_e <- q_e exp(step_size * R_e), normalised to sum to 1
    loss = sum_e q_e R_e / sum_e q_e - mean over rows of the task loss

R_e is the mean task loss of environment e, and the sums run over the environments in the batch. The second term turns
the task loss, which the model adds with weight 1, into the robust one. Paper: Sagawa et al., "Distributionally Robust
Neural Networks for Group Shifts", ICLR 2020,
https://huggingface.co/papers/1911.08731. Step size .01 as in the paper.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.environments import environment_means, row_risks
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.functional.sources import labelled_rows


class GroupDRO(Objective):
    """Online group DRO; the `domain` column numbers the environments from 0.

    Args:
        num_environments: how many environments there are.
        step_size: of the weights' exponentiated gradient ascent.
        weight: factor of this term; leave it at 1, at which the task loss is exactly the robust one.

    Raises:
        ValueError: a keyword is not positive; in training, an environment number is not below `num_environments`, or
            the batch has no labels or no `domain`.
    """

    paper = "1911.08731"
    tasks = ANY_PROBLEM
    needs = frozenset({"logits", "labels", "environments", "global_batch"})

    def __init__(self, num_environments: int = 2, step_size: float = 0.01, weight: float = 1.0):
        super().__init__(weight)
        require_positive(num_environments=num_environments, step_size=step_size)
        self.num_environments = num_environments
        self.step_size = step_size

    def build(self, context: BuildContext) -> None:
        # Logarithms, because the weight of an easy environment falls below the smallest float in a long training.
        self.register_buffer("log_q", torch.full((self.num_environments,), -math.log(self.num_environments)))

    @property
    def q(self) -> Tensor:
        """The environments' weights, [E]; they sum to 1."""
        return self.log_q.exp()

    @torch.no_grad()
    def ascend(self, present: Tensor, risks: Tensor) -> None:
        """One step of the weights towards the environments [E] with high risks [E]."""
        self.log_q[present] += self.step_size * risks.to(self.log_q.dtype)
        self.log_q -= self.log_q.logsumexp(dim=0)

    def forward(self, view: View) -> Tensor:
        labelled = labelled_rows(view)
        if not len(labelled.labels):
            return no_loss(view)
        losses = row_risks(labelled.logits, labelled.labels, view.problem_type, view.label_smoothing)
        present, risks = environment_means(losses, labelled.domain)
        if present.min() < 0 or present.max() >= self.num_environments:
            raise ValueError(
                f"`domain` should number environments from 0 to {self.num_environments - 1}, got {present.tolist()}: "
                "set `num_environments`."
            )
        self.ascend(present, risks)
        weights = self.log_q[present].softmax(dim=0)
        return (weights * risks).sum() - losses.mean()
