"""Reptile: the starting weights move towards where a few steps of training on each episode lead.

    theta_i = theta after inner_steps steps of gradient descent on the rows of episode i
    loss    = mean over episodes i of  1/2 |theta - sg(theta_i)|^2,   whose gradient is theta - mean_i theta_i

With `optim: sgd` and a learning rate eps an outer step is the paper's theta <- theta + eps (mean_i theta_i - theta);
the paper's eps falls from 1 to 0 in a straight line (`learning_rate: 1.0`, `lr_scheduler_type: linear`).
All rows of an episode train; an inner step reads the next `inner_batch_size` of them, a row of each class in turn (the
paper's code shuffles them), so that no step sees some classes alone.

Paper: Nichol et al., "On First-Order Meta-Learning Algorithms", 2018, https://huggingface.co/papers/1803.02999.
Defaults: 5 episodes a step, inner batches of 10 and 5 inner steps as its Omniglot runs, whose inner optimizer is Adam
without a first moment; here it is gradient descent, at the rate of its sinusoid example.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hf_transfer.core.objective import View
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.few_shot.adaptation import AdaptingObjective, Rows
from hf_transfer.functional.inner_loop import Weights, step_down, trainable
from hf_transfer.functional.keyword_checks import require_positive


class Reptile(AdaptingObjective):
    """Half the squared distance to the weights that the episodes lead to; keywords as AdaptingObjective.

    Args:
        inner_batch_size: rows that an inner step reads.
    """

    paper = "1803.02999"
    tasks = frozenset({SINGLE_LABEL})  # of episodes of classes; those of environments are of any

    def __init__(
        self,
        ways: int = 5,
        shots: int = 5,
        queries: int = 5,
        episodes_per_batch: int = 5,
        inner_learning_rate: float = 0.02,
        inner_steps: int = 5,
        inner_batch_size: int = 10,
        adapts: str | Sequence[str] = "all",
        groups: str = "classes",
        weight: float = 1.0,
    ):
        super().__init__(
            ways, shots, queries, episodes_per_batch, inner_learning_rate, inner_steps, adapts, groups, weight
        )
        require_positive(inner_batch_size=inner_batch_size)
        self.inner_batch_size = inner_batch_size

    def forward(self, view: View) -> Tensor:
        start, losses = self.moving(view.model), []
        for support, queries in self.episode_rows(view):
            end = self.adapt(view.model, joined(support, queries), self.inner_steps)
            losses.append(sum((start[name] - end[name].detach()).square().sum() / 2 for name in start))
        return sum(losses) / len(losses)

    def adapt(self, model: nn.Module, support: Rows, steps: int) -> Weights:
        """All weights that train, after so many inner steps on these rows."""
        weights, count, support = self.moving(model), len(support.labels), in_turn(support)
        for step in range(steps):
            order = torch.arange(step * self.inner_batch_size, (step + 1) * self.inner_batch_size) % count
            rows = support.some(order[:count].to(support.labels.device))
            weights = step_down(rows.loss(model, weights), weights, self.inner_learning_rate, second_order=False)
            weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
        return trainable(model) | weights


def in_turn(rows: Rows) -> Rows:
    """Rows of classes by their place within their class; others as they are."""
    if rows.outputs is None:
        return rows
    places = (rows.labels[:, None] == rows.labels).tril(-1).sum(dim=1)
    return rows.some((places * rows.outputs + rows.labels).argsort())


def joined(one: Rows, other: Rows) -> Rows:
    """The rows of both."""
    inputs = {name: torch.cat([value, other.inputs[name]]) for name, value in one.inputs.items()}
    return one._replace(inputs=inputs, labels=torch.cat([one.labels, other.labels]))
