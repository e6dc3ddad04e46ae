"""What MAML and Reptile share: the rows of an episode, and the steps that adapt some weights of a model to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor, nn

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.core.task_loss import ANY_PROBLEM, SINGLE_LABEL, problem_type_of, task_loss
from hf_transfer.few_shot.episodic import EpisodicObjective, classes_in_episode
from hf_transfer.functional.inner_loop import Weights, call, trainable
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.modeling.anatomy import linear_heads

GROUPS = {"classes": "labels", "environments": "domain"}


class Rows(NamedTuple):
    """Some rows of an episode."""

    inputs: dict[str, Tensor]
    labels: Tensor
    problem_type: str
    outputs: int | None
    """How many outputs of the head are read, from the first on; None for all."""
    label_smoothing: float = 0.0

    def some(self, keep: slice | Tensor) -> Rows:
        """Some of them."""
        inputs = {name: value[keep] for name, value in self.inputs.items()}
        return self._replace(inputs=inputs, labels=self.labels[keep])

    def loss(self, model: nn.Module, weights: Mapping[str, Tensor]) -> Tensor:
        """Mean task loss under these weights."""
        return task_loss(self.logits(model, weights), self.labels, self.problem_type, self.label_smoothing)

    def logits(self, model: nn.Module, weights: Mapping[str, Tensor]) -> Tensor:
        """[N, C] under these weights."""
        return call(model, weights, self.inputs)[:, : self.outputs]


class AdaptingObjective(EpisodicObjective):
    """Meta-learning of the weights from which a few steps of gradient descent adapt to an episode.

    Of `classes`, an episode draws `ways` classes anew, and the first `ways` outputs of the head stand for them; the
    model needs that many. Of `environments`, each value of the `domain` column is a task of its own, labels are read
    as they are, and an episode is `shots + queries` rows of one of them: `ways` is 1.

    Args:
        ways, shots, queries, episodes_per_batch, weight: as EpisodicObjective.
        inner_learning_rate: alpha, of the steps within an episode.
        inner_steps: how many.
        adapts: which weights the steps move: "all" that train, "head" (ANIL), "norms", or patterns of names such as
            ["*.layer.3.*"].
        groups: what an episode is drawn of, "classes" or "environments".

    Raises:
        ValueError: a number is not positive, `groups` or `adapts` is something else; at `build`, the head has fewer
            outputs than `ways`, or nothing that trains is named by `adapts`.
    """

    needs = frozenset({"inputs", "labels", "episodes"})

    def __init__(
        self,
        ways: int,
        shots: int,
        queries: int,
        episodes_per_batch: int,
        inner_learning_rate: float,
        inner_steps: int,
        adapts: str | Sequence[str],
        groups: str,
        weight: float,
    ):
        if groups not in GROUPS:
            raise ValueError(f"`groups` should be one of {sorted(GROUPS)}, got {groups!r}.")
        super().__init__(1 if groups == "environments" else ways, shots, queries, episodes_per_batch, weight)
        require_positive(inner_learning_rate=inner_learning_rate, inner_steps=inner_steps)
        if isinstance(adapts, str) and adapts not in ("all", "head", "norms"):
            raise ValueError(f'`adapts` should be "all", "head", "norms" or a list of patterns, got {adapts!r}.')
        self.inner_learning_rate = inner_learning_rate
        self.inner_steps = inner_steps
        self.adapts = adapts
        self.groups = groups
        self.grouped_by = GROUPS[groups]
        if groups == "environments":
            self.tasks = ANY_PROBLEM
            self.needs = type(self).needs | {"environments"}

    def build(self, context: BuildContext) -> None:
        super().build(context)
        if self.groups == "classes":
            context.require_classes(self.ways, type(self).__name__)
        self.moving(context.model)

    def moving(self, model: nn.Module) -> Weights:
        """The weights that adapt, by name. Raises ValueError where there is none."""
        weights = trainable(model)
        if self.adapts == "head":
            inside = {id(parameter) for head in linear_heads(model) for parameter in head.parameters()}
            weights = {name: value for name, value in weights.items() if id(value) in inside}
        elif self.adapts == "norms":
            norms = (module for module in model.modules() if "Norm" in type(module).__name__)
            inside = {id(parameter) for module in norms for parameter in module.parameters()}
            weights = {name: value for name, value in weights.items() if id(value) in inside}
        elif self.adapts != "all":
            weights = {
                name: value
                for name, value in weights.items()
                if any(fnmatchcase(name, pattern) for pattern in self.adapts)
            }
        if not weights:
            raise ValueError(f"`adapts={self.adapts!r}` names no weight of the model that trains.")
        return weights

    def episode_rows(self, view: View) -> Iterator[tuple[Rows, Rows]]:
        """The support and the query rows of each episode of a batch."""
        names = list(view.inputs)
        for labels, *inputs in self.episodes(view.labels, *view.inputs.values()):
            both = self.split(dict(zip(names, inputs)), labels, view.problem_type, view.model)
            yield tuple(rows._replace(label_smoothing=view.label_smoothing) for rows in both)

    def split(
        self, inputs: dict[str, Tensor], labels: Tensor, problem_type: str | None, model: nn.Module
    ) -> tuple[Rows, Rows]:
        """The support and the query rows of one episode, with the labels that the head learns."""
        if self.groups == "classes":
            rows = Rows(inputs, classes_in_episode(labels, self.ways, self.shots), SINGLE_LABEL, self.ways)
        else:
            rows = Rows(inputs, labels, problem_type or problem_type_of(model.config, labels), None)
        count = self.ways * self.shots
        return rows.some(slice(count)), rows.some(slice(count, None))
