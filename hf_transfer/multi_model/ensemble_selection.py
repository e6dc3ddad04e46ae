"""Weights of an ensemble, chosen greedily with replacement on held-out predictions.

    n_k <- n_k + 1  for the k of best  metric( sum_j n_j p_j / sum_j n_j ),   w = n / sum n

p_j [N, C] are the predictions of model j. It starts with the `start` best models and goes on for `rounds`; of all
stages the best one is taken, the earliest of equal ones. With several `bags` each chooses from a random half of the
models and the counts of all bags add up, which keeps a lucky model from carrying the ensemble.

Paper: Caruana et al., "Ensemble Selection from Libraries of Models", ICML 2004,
https://doi.org/10.1145/1015330.1015432. Bags of half the models as there; a start of 1 because hubs are smaller than
the paper's libraries of 2,000.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hf_transfer.functional.keyword_checks import require_positive

Metric = Callable[[Tensor, Tensor], float]


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Share of rows whose most probable class [N, C] is their label [N]."""
    return (predictions.argmax(dim=1) == labels).double().mean().item()


def log_likelihood(predictions: Tensor, labels: Tensor) -> float:
    """Mean log probability [N, C] of the label [N]."""
    chosen = predictions[torch.arange(len(labels)), labels].double()
    return chosen.clamp(min=torch.finfo(torch.float64).tiny).log().mean().item()


def negative_squared_error(predictions: Tensor, labels: Tensor) -> float:
    """Minus the mean squared error of numbers [N, C] against labels [N] or [N, C]."""
    return -(predictions - labels.reshape(predictions.shape)).double().square().mean().item()


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "log_likelihood": log_likelihood,
    "negative_squared_error": negative_squared_error,
}
"""Higher is better."""


def greedy_ensemble(
    predictions: Tensor,
    labels: Tensor,
    metric: str | Metric = "accuracy",
    rounds: int = 100,
    start: int = 1,
    bags: int = 1,
    seed: int = 0,
) -> Tensor:
    """Weights [K] of the models, which sum to 1; `Ensemble.of` takes them.

    Args:
        predictions: [K, N, C], of every model on held-out rows; `predictions_of` makes them.
        labels: [N] classes, or what the metric reads.
        metric: a key of `METRICS`, or a function of predictions [N, C] and labels, higher is better. Of few rows
            `log_likelihood` tells more: accuracies of some dozen rows are a matter of one or two of them.
        rounds: how often a model is added.
        start: how many of the best models it begins with.
        bags: of how many choices the counts add up, each from a random half of the models; 1 chooses from all.
        seed: of the halves.

    Raises:
        ValueError: shapes that do not fit, a metric that there is not, or a number out of its range.
    """
    if predictions.ndim != 3 or predictions.shape[1] != len(labels):
        raise ValueError(
            f"`predictions` should be [models, rows, outputs] with as many rows as `labels` ({len(labels)}), got "
            f"{list(predictions.shape)}."
        )
    if isinstance(metric, str) and metric not in METRICS:
        raise ValueError(f"`metric` should be one of {sorted(METRICS)} or a function, got {metric!r}.")
    require_positive(rounds=rounds, bags=bags)
    if not 1 <= start <= len(predictions):
        raise ValueError(f"`start` should be from 1 to {len(predictions)}, the number of models, got {start}.")
    measure = METRICS[metric] if isinstance(metric, str) else metric
    generator = torch.Generator().manual_seed(seed)
    counts = torch.zeros(len(predictions), dtype=torch.float64)
    for _ in range(bags):
        size = len(predictions) if bags == 1 else max(1, len(predictions) // 2)
        chosen = torch.randperm(len(predictions), generator=generator)[:size].sort().values
        counts[chosen] += best_counts(predictions[chosen].double(), labels, measure, rounds, min(start, size))
    return counts / counts.sum()


def best_counts(predictions: Tensor, labels: Tensor, measure: Metric, rounds: int, start: int) -> Tensor:
    """How often each model [K] is in the best of all stages, as shares that sum to 1."""
    alone = torch.tensor([measure(one, labels) for one in predictions], dtype=torch.float64)
    counts = torch.zeros(len(predictions), dtype=torch.float64)
    counts[alone.argsort(descending=True, stable=True)[:start]] = 1
    total = predictions[counts.bool()].sum(dim=0)
    best, best_score = counts / counts.sum(), measure(total / start, labels)
    for size in range(start + 1, start + rounds + 1):
        scores = torch.tensor([measure((total + one) / size, labels) for one in predictions], dtype=torch.float64)
        added = int(scores.argmax())
        counts[added] += 1
        total = total + predictions[added]
        if scores[added] > best_score:
            best, best_score = counts / counts.sum(), scores[added].item()
    return best
