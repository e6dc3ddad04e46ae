"""What the objectives of few-shot learning share: a batch that is an episode, and the loss of its queries."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hf_transfer.core.objective import Objective, View
from hf_transfer.functional.keyword_checks import require_positive


class EpisodicObjective(Objective):
    """Cross entropy of an episode's query rows, classified by its support rows alone.

    The trainer draws the episodes when one of its objectives is of this kind; `per_device_train_batch_size` has to be
    `ways * (shots + queries)`. The support rows come first, class by class, then the queries alike.

    Args:
        ways: classes in an episode.
        shots: support rows of each class.
        queries: query rows of each class.
        weight: factor of this term in the training loss; `task_loss_weight=0` trains on it alone.

    Raises:
        ValueError: a number is not positive; in training, the batch is no such episode.
    """

    needs = frozenset({"features", "labels", "episodes"})

    def __init__(self, ways: int = 5, shots: int = 5, queries: int = 15, weight: float = 1.0):
        super().__init__(weight)
        require_positive(ways=ways, shots=shots, queries=queries)
        self.ways = ways
        self.shots = shots
        self.queries = queries

    @staticmethod
    def log_probabilities(support: Tensor, queries: Tensor) -> Tensor:
        """log p(class | query), [Q, ways], from support features [ways, shots, D] and query features [Q, D]."""
        raise NotImplementedError

    def forward(self, view: View) -> Tensor:
        support, queries, targets = split_episode(view.features, view.labels, self.ways, self.shots)
        return F.nll_loss(self.log_probabilities(support, queries), targets)


def split_episode(features: Tensor, labels: Tensor, ways: int, shots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Support features [ways, shots, D], query features [Q, D] and the queries' places [Q] among the classes.

    Args:
        features: [ways * shots + Q, D], the support rows first, class by class.
        labels: [ways * shots + Q].
        ways: number of classes.
        shots: support rows of each class.

    Raises:
        ValueError: the rows do not stand so.
    """
    count = ways * shots
    classes = labels[:count].unflatten(0, (ways, shots)) if len(labels) > count else labels.new_zeros(0, 1)
    is_query_of = labels[count:].unsqueeze(1) == classes[:, 0]
    if not len(classes) or not (classes == classes[:, :1]).all() or not (is_query_of.sum(dim=1) == 1).all():
        raise ValueError(
            f"the batch is no episode of {ways} classes with {shots} support rows each in front of the queries: its "
            f"labels are {labels.tolist()}."
        )
    return features[:count].unflatten(0, (ways, shots)), features[count:], is_query_of.int().argmax(dim=1)
