"""Model-agnostic meta-learning: starting weights from which a few gradient steps on few rows generalise.

    theta_i = theta - alpha dL_support,i (theta), inner_steps times
    loss    = mean over episodes i of  L_query,i (theta_i)

L is the task loss, in an episode of classes that of the classes as they are numbered there. The gradient goes through
the inner steps; `first_order` leaves the second derivatives out (FOMAML), and `adapts: head` moves the head alone in
the inner steps (ANIL, Raghu et al., ICLR 2020, https://huggingface.co/papers/1909.09157).

Paper: Finn et al., "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017,
https://huggingface.co/papers/1703.03400. Defaults are those of its miniImageNet runs: 5 ways, 15 queries, 4 episodes,
alpha .01, 5 inner steps; the outer optimizer there is Adam at 1e-3.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from torch import Tensor, nn

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.few_shot.adaptation import AdaptingObjective, Rows
from hf_transfer.functional.inner_loop import Weights, adapted, check_second_order, trainable, twice_differentiable


class MAML(AdaptingObjective):
    """The loss of the queries after steps on the support; keywords as AdaptingObjective.

    Args:
        first_order: leave out the second derivatives, which cost about as much again in time and memory.
    """

    paper = "1703.03400"
    tasks = frozenset({SINGLE_LABEL})  # of episodes of classes; those of environments are of any

    def __init__(
        self,
        ways: int = 5,
        shots: int = 5,
        queries: int = 15,
        episodes_per_batch: int = 4,
        inner_learning_rate: float = 0.01,
        inner_steps: int = 5,
        first_order: bool = False,
        adapts: str | Sequence[str] = "all",
        groups: str = "classes",
        weight: float = 1.0,
    ):
        super().__init__(
            ways, shots, queries, episodes_per_batch, inner_learning_rate, inner_steps, adapts, groups, weight
        )
        self.first_order = first_order

    def build(self, context: BuildContext) -> None:
        super().build(context)
        if not self.first_order:
            check_second_order(context.model)

    def forward(self, view: View) -> Tensor:
        losses = []
        with nullcontext() if self.first_order else twice_differentiable():
            for support, queries in self.episode_rows(view):
                losses.append(queries.loss(view.model, self.adapt(view.model, support, self.inner_steps)))
        return sum(losses) / len(losses)

    def adapt(self, model: nn.Module, support: Rows, steps: int) -> Weights:
        """All weights that train, after so many inner steps on the support rows."""
        moved = adapted(
            lambda weights: support.loss(model, weights),
            self.moving(model),
            steps,
            self.inner_learning_rate,
            second_order=not self.first_order,
        )
        return trainable(model) | moved
