"""Arguments that a run would pass over in silence are refused before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING
from typing import Any

from hf_transfer.runs.arguments import Experiment
from hf_transfer.tasks import task_named
from hf_transfer.training.objectives import make_objectives


def is_task_run(experiment: Experiment) -> bool:
    return experiment.data.target_dataset is None


def is_not_read(name: str) -> Callable[[Experiment], bool]:
    """Whether the task of a run does not read this argument."""
    return lambda experiment: name not in task_named(experiment.model.task).own_arguments


def draws_nothing(experiment: Experiment) -> bool:
    return is_task_run(experiment) or not experiment.run.diagnostics


def reads_no_single_source(experiment: Experiment) -> bool:
    return not is_task_run(experiment) or not task_named(experiment.model.task).reads_labels


def reads_labels_or_domains(experiment: Experiment) -> bool:
    return not is_task_run(experiment) or task_named(experiment.model.task).reads_labels


def cannot_collapse(experiment: Experiment) -> bool:
    """Whether no objective trains features without labels, or labels or a target are there to train by."""
    made = make_objectives(experiment.config.objectives).values()
    return reads_labels_or_domains(experiment) or not any(one.can_collapse for one in made)


def reads_all_rows_first(experiment: Experiment) -> bool:
    """Whether the task reads all rows before training, such as returns and lengths of episodes."""
    task = task_named(experiment.model.task)
    return task.reads == "trajectory" or not task.streams


DOMAIN = "domain adaptation, which a `target_dataset` makes of a run"
TEXT = "tasks on text"
UNLABELLED = "pre-training without labels"
ONE_DOMAIN = "training on labelled rows of one domain"
SELF_SUPERVISED = "pre-training by objectives that compare views without labels, such as simsiam"
PRETRAINING = "pre-training on text (fill-mask, text-generation, text2text-generation)"
RULES: dict[str, tuple[Callable[[Experiment], bool], str]] = {
    "validator": (is_task_run, DOMAIN),
    "source_holdout": (is_task_run, DOMAIN),
    "validation_rows": (is_task_run, DOMAIN),
    "target_split": (is_task_run, DOMAIN),
    "target_options": (is_task_run, DOMAIN),
    "label_shift": (is_task_run, DOMAIN),
    "embedding": (draws_nothing, f"the pictures (`diagnostics: true`) of a {DOMAIN}"),
    "stop_on_collapse": (cannot_collapse, SELF_SUPERVISED),
    "tokenizer": (is_not_read("tokenizer"), TEXT),
    "text_columns": (is_not_read("text_columns"), TEXT),
    "max_length": (is_not_read("max_length"), TEXT),
    "series_columns": (is_not_read("series_columns"), "tasks on time series"),
    "transfer_probes": (reads_labels_or_domains, UNLABELLED),
    "dat": (reads_no_single_source, ONE_DOMAIN),
    "prompts": (is_not_read("prompts"), "the tasks zero-shot- and prompted-image-classification"),
    "pixels": (is_not_read("pixels"), "the tasks causal-image-modeling and masked-pixel-modeling"),
    "block_size": (is_not_read("block_size"), PRETRAINING),
    "pretraining": (is_not_read("pretraining"), f"{PRETRAINING}, and masked-time-series-modeling"),
    "streaming": (reads_all_rows_first, "tasks on images, texts and series, whose rows are read one by one"),
    "id2label": (is_not_read("id2label"), "masks (image-segmentation) and key points (keypoint-detection)"),
    "ignore_index": (is_not_read("ignore_index"), "masks (image-segmentation)"),
    "fourier_adaptation": (is_task_run, DOMAIN),
    "forecasting": (is_not_read("forecasting"), "the task time-series-forecasting"),
    "trajectories": (is_not_read("trajectories"), "the task offline-reinforcement-learning"),
}
"""Argument -> when nothing reads it, and what it is for."""


def check_nothing_is_ignored(experiment: Experiment) -> None:
    """Raises ValueError for an argument that is given and that nothing in such a run reads."""
    for name, (is_ignored, purpose) in RULES.items():
        value, default = value_and_default(experiment, name)
        if value != default and is_ignored(experiment):
            raise ValueError(
                f"`{name}` = {value!r} would be ignored: it is for {purpose}, and this run's task is "
                f"{experiment.model.task}{' without a target' if is_task_run(experiment) else ''}. Leave it out."
            )


def value_and_default(experiment: Experiment, name: str) -> tuple[Any, Any]:
    """What an argument is, and what it is when it is left out."""
    for group in experiment:
        field = type(group).__dataclass_fields__.get(name)
        if field is not None:
            default = field.default_factory() if field.default is MISSING else field.default
            return getattr(group, name), default
    raise KeyError(name)
