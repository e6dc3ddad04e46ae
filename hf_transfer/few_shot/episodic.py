"""What the objectives of few-shot learning share: a batch of episodes, and the loss of an episode's queries."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from hf_transfer.core.objective import BuildContext, Objective, View
from hf_transfer.functional.keyword_checks import require_positive


class EpisodicObjective(Objective):
    """Training on episodes, which the trainer draws when one of its objectives is of this kind.

    `per_device_train_batch_size` has to be `episodes_per_batch * ways * (shots + queries)`. In an episode the support
    rows come first, class by class, then the queries alike.

    Args:
        ways: classes in an episode.
        shots: support rows of each class.
        queries: query rows of each class.
        episodes_per_batch: whose losses are averaged in a step.
        weight: factor of this term in the training loss; `task_loss_weight=0` trains on it alone.

    Raises:
        ValueError: a number is not positive; in training, the batch holds no such episodes.
    """

    needs = frozenset({"features", "labels", "episodes"})
    rows_per_domain = 0  # an episode may be of one environment, however many there are
    grouped_by = "labels"
    """The column whose values are the classes that an episode is drawn of: `labels` or `domain`."""

    def __init__(
        self, ways: int = 5, shots: int = 5, queries: int = 15, episodes_per_batch: int = 1, weight: float = 1.0
    ):
        super().__init__(weight)
        require_positive(ways=ways, shots=shots, queries=queries, episodes_per_batch=episodes_per_batch)
        self.ways = ways
        self.shots = shots
        self.queries = queries
        self.episodes_per_batch = episodes_per_batch

    def build(self, context: BuildContext) -> None:
        if self.grouped_by == "labels" and self.ways < 2:
            raise ValueError(f"`ways` should be at least 2, got {self.ways}: an episode of one class teaches nothing.")
        context.require_rows(type(self).__name__)

    def episodes(self, *values: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The rows of each episode in turn, of tensors [B, ...]."""
        size = self.ways * (self.shots + self.queries)
        yield from zip(*(value.split(size) for value in values), strict=True)


class MetricObjective(EpisodicObjective):
    """Cross entropy of an episode's query rows, by its support rows alone; keywords as EpisodicObjective."""

    @staticmethod
    def log_probabilities(support: Tensor, queries: Tensor) -> Tensor:
        """log p(class | query), [Q, ways], from support features [ways, shots, D] and query features [Q, D]."""
        raise NotImplementedError

    def forward(self, view: View) -> Tensor:
        losses = []
        for features, labels in self.episodes(view.features, view.labels):
            support, queries, targets = split_episode(features, labels, self.ways, self.shots)
            losses.append(F.nll_loss(self.log_probabilities(support, queries), targets))
        return sum(losses) / len(losses)


def split_episode(features: Tensor, labels: Tensor, ways: int, shots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Support features [ways, shots, D], query features [Q, D] and the classes [Q] of the queries in the episode.

    Args:
        features: [ways * shots + Q, D], the support rows first, class by class.
        labels: [ways * shots + Q].
        ways: number of classes.
        shots: support rows of each class.

    Raises:
        ValueError: the rows do not stand so.
    """
    count = ways * shots
    targets = classes_in_episode(labels, ways, shots)
    return features[:count].unflatten(0, (ways, shots)), features[count:], targets[count:]


def classes_in_episode(labels: Tensor, ways: int, shots: int) -> Tensor:
    """The class of each row as its number in the episode, [ways * shots + Q] in 0 ... ways - 1.

    Args:
        labels: [ways * shots + Q], the support rows first, class by class.
        ways: number of classes.
        shots: support rows of each class.

    Raises:
        ValueError: the rows do not stand so.
    """
    count = ways * shots
    classes = labels[:count].unflatten(0, (ways, shots)) if len(labels) > count else labels.new_zeros(0, 1)
    is_of = labels.unsqueeze(1) == classes[:, 0]
    if not len(classes) or not (classes == classes[:, :1]).all() or not (is_of.sum(dim=1) == 1).all():
        raise ValueError(
            f"the batch is no episode of {ways} classes with {shots} support rows each in front of the queries: its "
            f"labels are {labels.tolist()}."
        )
    return is_of.int().argmax(dim=1)
