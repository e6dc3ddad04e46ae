"""How well meta-learned weights adapt: the metric of query rows after 0, 1, ... steps on an episode's support rows.

    interval = 1.96 s / sqrt(episodes),   s = standard deviation of the episodes' values

In an episode of classes the value is the accuracy of the queries, in one of an environment their task loss. The model
is in evaluation mode; where it has batch norm, whose statistics MAML's own experiments take from the query rows
together, the values with the batch's statistics stand beside those with the stored ones, as `transductive`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_transfer.data.checks import column_values, label_column
from hf_transfer.data.episodes import EpisodeSampler
from hf_transfer.few_shot.adaptation import AdaptingObjective, Rows
from hf_transfer.training.trainer import TransferTrainer


def evaluate_adaptation(
    trainer: TransferTrainer,
    dataset: Dataset,
    objective: AdaptingObjective,
    *,
    steps: Sequence[int] = (0, 1, 10),
    episodes: int = 100,
    seed: int = 0,
) -> dict[str, dict[int, tuple[float, float]]]:
    """Mean and half of its 95 % interval after each number of steps, by name: `inductive`, and `transductive` if any.

    Every process takes its share of the episodes; all return the same.

    Args:
        trainer: around the model; its collator makes the batches.
        dataset: labelled rows as model inputs; the classes or environments need not be those of the training.
        objective: whose episodes and inner steps are used.
        steps: of the inner loop.
        episodes: how many, at least 2.
        seed: of the episodes.

    Raises:
        ValueError: the rows are too few for such episodes, or fewer than two episodes.
    """
    if episodes < 2:
        raise ValueError(f"`episodes` should be at least 2, got {episodes}.")
    column = label_column(dataset, "few-shot") if objective.grouped_by == "labels" else objective.grouped_by
    groups = column_values(dataset, column)
    sampler = EpisodeSampler(groups, objective.ways, objective.shots, objective.queries, seed, num_episodes=episodes)
    model, dataset = trainer.adapted_model.eval(), trainer._remove_unused_columns(dataset)
    modes = {"inductive": False}
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        modes["transductive"] = True
    values = torch.zeros(len(modes), episodes, len(steps), dtype=torch.float64)
    for number in range(trainer.args.process_index, episodes, trainer.args.world_size):
        support, queries = rows_of(trainer, dataset, sampler.episode(number), objective)
        for mode, transductive in enumerate(modes.values()):
            for index, count in enumerate(steps):
                with batch_norm_of(model, transductive):
                    weights = objective.adapt(model, support, count)
                    with torch.no_grad():
                        values[mode, number, index] = value_of(model, queries, weights, objective)
    values = trainer.accelerator.reduce(values.to(trainer.args.device), reduction="sum").cpu()
    intervals = 1.96 * values.std(dim=1) / episodes**0.5
    return {
        name: {
            count: (values[mode, :, index].mean().item(), intervals[mode, index].item())
            for index, count in enumerate(steps)
        }
        for mode, name in enumerate(modes)
    }


def rows_of(
    trainer: TransferTrainer, dataset: Dataset, numbers: Sequence[int], objective: AdaptingObjective
) -> tuple[Rows, Rows]:
    """The support and query rows of an episode as the model takes them."""
    batch: Mapping[str, Any] = trainer.data_collator([dataset[number] for number in numbers])
    batch = trainer._prepare_inputs(batch)
    model = trainer.adapted_model
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "domain")}
    problem_type = getattr(model.config, "problem_type", None)
    return objective.split(inputs, batch["labels"], problem_type, model)


def value_of(
    model: nn.Module, queries: Rows, weights: Mapping[str, torch.Tensor], objective: AdaptingObjective
) -> float:
    """Accuracy of the queries in an episode of classes, their task loss in one of an environment."""
    if objective.groups == "environments":
        return queries.loss(model, weights).item()
    return (queries.logits(model, weights).argmax(dim=1) == queries.labels).double().mean().item()


@contextmanager
def batch_norm_of(model: nn.Module, transductive: bool) -> Iterator[None]:
    """Within the block batch norm takes the statistics of the batch, or those it stored; these stay as they are."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)] if transductive else []
    stored = {buffer: buffer.clone() for norm in norms for buffer in norm.buffers()}
    for norm in norms:
        norm.train()
    try:
        yield
    finally:
        for norm in norms:
            norm.eval()
        for buffer, value in stored.items():
            buffer.copy_(value)
