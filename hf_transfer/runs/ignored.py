"""Arguments that a run would pass over in silence are refused before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING
from typing import Any

from hf_transfer.runs.arguments import Arguments
from hf_transfer.runs.models import IMAGE_TASKS, TRAJECTORY_TASK


def is_task_run(arguments: Arguments) -> bool:
    return arguments[1].target_dataset is None


def reads_no_text(arguments: Arguments) -> bool:
    return arguments[0].task in (*IMAGE_TASKS, "time-series-classification", TRAJECTORY_TASK)


def draws_nothing(arguments: Arguments) -> bool:
    return is_task_run(arguments) or not arguments[2].diagnostics


DOMAIN = "domain adaptation, which a `target_dataset` makes of a run"
TEXT = "tasks on text"
RULES: dict[str, tuple[Callable[[Arguments], bool], str]] = {
    "validator": (is_task_run, DOMAIN),
    "source_holdout": (is_task_run, DOMAIN),
    "validation_rows": (is_task_run, DOMAIN),
    "target_split": (is_task_run, DOMAIN),
    "target_options": (is_task_run, DOMAIN),
    "embedding": (draws_nothing, f"the pictures (`diagnostics: true`) of a {DOMAIN}"),
    "tokenizer": (reads_no_text, TEXT),
    "text_columns": (reads_no_text, TEXT),
    "max_length": (reads_no_text, TEXT),
    "block_size": (lambda arguments: arguments[0].task != "text-generation", "the task text-generation"),
    "trajectories": (lambda arguments: arguments[0].task != TRAJECTORY_TASK, f"the task {TRAJECTORY_TASK}"),
}
"""Argument -> when nothing reads it, and what it is for."""


def check_nothing_is_ignored(arguments: Arguments) -> None:
    """Raises ValueError for an argument that is given and that nothing in such a run reads."""
    for name, (is_ignored, purpose) in RULES.items():
        value, default = value_and_default(arguments, name)
        if value != default and is_ignored(arguments):
            raise ValueError(
                f"`{name}` = {value!r} would be ignored: it is for {purpose}, and this run's task is "
                f"{arguments[0].task}{' without a target' if is_task_run(arguments) else ''}. Leave it out."
            )


def value_and_default(arguments: Arguments, name: str) -> tuple[Any, Any]:
    """What an argument is, and what it is when it is left out."""
    for group in arguments:
        field = type(group).__dataclass_fields__.get(name)
        if field is not None:
            default = field.default_factory() if field.default is MISSING else field.default
            return getattr(group, name), default
    raise KeyError(name)
