"""What a run measures on its test rows: its head, and its features over episodes where it trained on episodes."""

from __future__ import annotations

from datasets import Dataset
from transformers.utils import logging

from hf_transfer.data.checks import column_values, label_column
from hf_transfer.data.episodes import EpisodeSampler
from hf_transfer.evaluation.few_shot import FewShotSettings, evaluate_few_shot
from hf_transfer.evaluation.meta_learning import evaluate_adaptation
from hf_transfer.few_shot.adaptation import AdaptingObjective
from hf_transfer.few_shot.episodic import EpisodicObjective
from hf_transfer.runs.data import RunData
from hf_transfer.training.trainer import TransferTrainer

logger = logging.get_logger(__name__)


def measured_metrics(trainer: TransferTrainer, data: RunData) -> dict[str, float]:
    """Metrics on the evaluation rows by name, without the Trainer's timings; none where there are no such rows.

    A run with an episodic objective has `few_shot_accuracy` and `few_shot_interval` too, half of the 95 % interval.
    Where nothing else trains, the head learned nothing and its metrics are left out.
    """
    is_probed = getattr(trainer, "transfer_probes", None) is not None
    if data.test is None and data.target is None and not is_probed:
        return {}
    episodic = few_shot_metrics(trainer, data.test)
    if episodic and not trains_head(trainer):
        return episodic
    hidden = ("_runtime", "_per_second", "_preparation_time", "epoch")
    evaluated = trainer.evaluate()
    metrics = {name.removeprefix("eval_"): value for name, value in evaluated.items() if not name.endswith(hidden)}
    return metrics | episodic


def trains_head(trainer: TransferTrainer) -> bool:
    """Whether anything but episodes trains, which leave the head as it is."""
    objectives = trainer.transfer_model.objectives.values()
    return trainer.args.task_loss_weight > 0 or not all(isinstance(one, EpisodicObjective) for one in objectives)


def few_shot_metrics(trainer: TransferTrainer, test: Dataset | None) -> dict[str, float]:
    """Measured over episodes like those of the training; nothing where there were none, or the rows are too few."""
    objectives = trainer.transfer_model.objectives
    found = [(name, one) for name, one in objectives.items() if isinstance(one, EpisodicObjective)]
    if test is None or not found:
        return {}
    name, one = found[0]
    column = label_column(test, "test") if one.grouped_by == "labels" else one.grouped_by
    try:
        EpisodeSampler(column_values(test, column), one.ways, one.shots, one.queries)
    except ValueError as error:
        logger.warning(f"The test rows are too few for episodes, so the head alone is measured: {error}")
        return {}
    if isinstance(one, AdaptingObjective):
        return adaptation_metrics(trainer, test, one)
    settings = FewShotSettings(one.ways, one.shots, one.queries, method=name, seed=trainer.args.seed)
    measured = evaluate_few_shot(trainer, test, settings)
    return {"few_shot_accuracy": measured["accuracy"], "few_shot_interval": measured["interval"]}


def adaptation_metrics(trainer: TransferTrainer, test: Dataset, objective: AdaptingObjective) -> dict[str, float]:
    """Accuracy of the queries, or loss where an episode is an environment, after the inner steps and before them."""
    steps = (0, objective.inner_steps)
    measured = evaluate_adaptation(trainer, test, objective, steps=steps, seed=trainer.args.seed)
    kind, found = "loss" if objective.groups == "environments" else "accuracy", {}
    for mode, values in measured.items():
        name = f"few_shot_{kind}" if mode == "inductive" else f"few_shot_{kind}_{mode}"
        found |= {name: values[steps[1]][0], f"{name}_before_steps": values[0][0]}
        found |= {"few_shot_interval": values[steps[1]][1]} if mode == "inductive" else {}
    return found
