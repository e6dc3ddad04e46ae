"""Accuracy of few-shot classification over many episodes, with its 95 % interval.

    interval = 1.96 s / sqrt(episodes),   s = standard deviation of the episodes' accuracies

600 episodes of 15 queries a class, as Snell et al. 2017 (https://huggingface.co/papers/1703.05175) report. An episode
depends on the seed and its number alone, so several processes share the episodes out and find what one finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from hf_transfer.core.registry import registered
from hf_transfer.data.checks import column_values, label_column
from hf_transfer.data.episodes import EpisodeSampler
from hf_transfer.few_shot import METRICS
from hf_transfer.few_shot.episodic import split_episode
from hf_transfer.training.trainer import TransferTrainer


@dataclass(frozen=True)
class FewShotSettings:
    """What an episode is and how its queries are classified.

    Args:
        ways: classes in an episode.
        shots: support rows of each class.
        queries: query rows of each class.
        episodes: how many.
        method: `prototypical` or `matching`.
        seed: of the episodes.

    Raises:
        ValueError: an unknown method, or fewer than two episodes.
    """

    ways: int = 5
    shots: int = 5
    queries: int = 15
    episodes: int = 600
    method: str = "prototypical"
    seed: int = 0

    def __post_init__(self):
        if self.method not in METRICS:
            raise ValueError(f"`method` should be one of {sorted(METRICS)}, got {self.method!r}.")
        if self.episodes < 2:
            raise ValueError(f"`episodes` should be at least 2, got {self.episodes}.")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> FewShotSettings:
        """The settings of a mapping. Raises ValueError for a keyword that there is not."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"`few_shot` has no {unknown}, accepted: {sorted(cls.__dataclass_fields__)}.")
        return cls(**values)


def evaluate_episodes(features: Tensor, labels: Tensor, settings: FewShotSettings) -> dict[str, Any]:
    """Mean accuracy over the episodes (`accuracy`), its `interval` (half of the 95 % one), and the settings.

    Args:
        features: [N, D] of all rows.
        labels: [N] classes.
        settings: of the episodes.

    Raises:
        ValueError: the rows are too few for such episodes.
    """
    return _summary(right_answers(features, labels, settings, range(settings.episodes)), settings)


def right_answers(features: Tensor, labels: Tensor, settings: FewShotSettings, numbers: Iterable[int]) -> Tensor:
    """How many queries of each episode are classified right, [episodes]; 0 where an episode is not asked for.

    Args:
        features: [N, D] of all rows.
        labels: [N] classes.
        settings: of the episodes.
        numbers: of the episodes asked for.

    Raises:
        ValueError: the rows are too few for such episodes.
    """
    sampler = EpisodeSampler(
        labels, settings.ways, settings.shots, settings.queries, settings.seed, num_episodes=settings.episodes
    )
    classify = registered(METRICS, settings.method, "method").log_probabilities
    right = torch.zeros(settings.episodes, dtype=torch.long)
    for number in numbers:
        rows = torch.tensor(sampler.episode(number))
        support, queries, targets = split_episode(features[rows], labels[rows], settings.ways, settings.shots)
        right[number] = (classify(support, queries).argmax(dim=1) == targets).sum()
    return right


def _summary(right: Tensor, settings: FewShotSettings) -> dict[str, Any]:
    accuracies = right.double() / (settings.ways * settings.queries)
    interval = 1.96 * accuracies.std().item() / settings.episodes**0.5
    return {"accuracy": accuracies.mean().item(), "interval": interval, **asdict(settings)}


def features_and_labels(trainer: TransferTrainer, dataset: Dataset, name: str) -> tuple[Tensor, Tensor]:
    """Features [N, D] and classes [N] of rows, in their order.

    Args:
        trainer: around a model with a linear head, whose input the features are.
        dataset: labelled rows as model inputs.
        name: of the evaluation, for the error about a missing column of labels.
    """
    column = label_column(dataset, name)
    labels = torch.from_numpy(column_values(dataset, column))
    trainer.transfer_model.returns_features = True
    try:
        _, features = trainer.predict(dataset.remove_columns(column)).predictions
    finally:
        trainer.transfer_model.returns_features = False
    return torch.from_numpy(features), labels


def evaluate_few_shot(trainer: TransferTrainer, dataset: Dataset, settings: FewShotSettings) -> dict[str, Any]:
    """`evaluate_episodes` of the features that the trainer's model gives.

    Every process reads its share of the rows and classifies its share of the episodes; all return the same.

    Args:
        trainer: around a model with a linear head, whose input the features are; the head itself is not used.
        dataset: labelled rows as model inputs; the classes need not be the model's.
        settings: of the episodes.
    """
    features, labels = features_and_labels(trainer, dataset, "few-shot")
    numbers = range(trainer.args.process_index, settings.episodes, trainer.args.world_size)
    right = right_answers(features, labels, settings, numbers)
    right = trainer.accelerator.reduce(right.to(trainer.args.device), reduction="sum").cpu()
    return _summary(right, settings)
