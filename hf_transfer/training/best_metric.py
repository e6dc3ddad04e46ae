"""`metric_for_best_model`: which way it is better, for checkpoints and rates, and that evaluations have it at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from datasets import Dataset
from transformers import SchedulerType, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from hf_transfer.core.random_state import kept_random_state

ERRORS = ("loss", "error", "perplexity", "mse", "mae", "rmse", "mape", "wer", "cer", "nll", "ece", "brier")
"""The last words of metrics of which less is better; `negative` before one says that more is."""


def greater_is_better(metric: str) -> bool:
    """Whether more of a metric is better, by its name.

    transformers takes every metric for one of which more is better unless its name ends in `loss`, and would keep the
    checkpoint of the largest error.

    Args:
        metric: with or without `eval_` before it.
    """
    words = metric.lower().split("_")
    return words[-1] not in ERRORS or any(word in ("neg", "negative") for word in words)


def watch_best_metric(args: TrainingArguments) -> None:
    """Tell a rate that follows the metric which way this is better; transformers takes all of them for errors, and
    would lower the rate while an accuracy rises."""
    if args.lr_scheduler_type in (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY):
        mode = "max" if args.greater_is_better else "min"
        args.lr_scheduler_kwargs = {"mode": mode, **(args.lr_scheduler_kwargs or {})}


def check_best_metric(trainer: Any) -> None:
    """Measure the first rows, and all of them where that does not do, to see that an evaluation has the metric.

    Asked at the first step: transformers finds out at the end of the first evaluation, before it saves anything.

    Args:
        trainer: a TransferTrainer in training.

    Raises:
        ValueError: no evaluation has the metric.
    """
    metric = trainer.args.metric_for_best_model
    if metric is None or trainer.args.eval_strategy == "no":
        return
    metric = f"eval_{metric.removeprefix('eval_')}"
    if metric in trainer.own_metrics:
        return
    sets = evaluation_sets(trainer.eval_dataset)
    if not all(isinstance(rows, Dataset) for rows in sets.values()):
        return  # a stream is read once
    first = trainer.args.eval_batch_size * trainer.args.world_size
    seen = set(trainer.own_metrics)
    with kept_random_state():
        few = ((name, rows.select(range(first))) for name, rows in sets.items() if len(rows) > first)
        for found in _measured(trainer, chain(few, sets.items())):
            seen |= set(found)
            if metric in seen:
                return
    raise ValueError(
        f"`metric_for_best_model` is {metric.removeprefix('eval_')!r}, which no evaluation has: give one of "
        f"{sorted(name.removeprefix('eval_') for name in seen)}."
    )


def close_prediction_bar(trainer: Any) -> None:
    """A pass of its own has a bar of its own: the Trainer closes none before the whole evaluation is over."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, ProgressCallback):
            callback.on_predict(trainer.args, trainer.state, trainer.control)


def evaluation_sets(rows: Any) -> dict[str, Any]:
    """What the names of metrics begin with -> rows to evaluate on."""
    if rows is None:
        return {}
    return {f"eval_{name}": one for name, one in rows.items()} if isinstance(rows, Mapping) else {"eval": rows}


def _measured(trainer: Any, sets: Iterator[tuple[str, Dataset]]) -> Iterator[dict[str, float]]:
    for prefix, rows in sets:
        loader = trainer.get_test_dataloader(rows)
        only_loss = True if trainer.compute_metrics is None else None
        output = trainer.evaluation_loop(loader, "Check of metric_for_best_model", only_loss, metric_key_prefix=prefix)
        close_prediction_bar(trainer)
        yield output.metrics
