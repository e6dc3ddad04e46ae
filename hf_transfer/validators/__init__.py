"""Scores that choose a checkpoint without target labels. Higher is better.

Every validator is a pure function `(features, logits, domain, labels=None) -> float` of one evaluation set:
features [N, D], logits [N, C], domain [N] (0 = source, 1 = target; None where all rows are target rows) and the labels
([N] classes, or [N] or [N, C] of a regression or of several labels), of which only those of source rows are ever read.
Those that measure the task's own loss also take `problem_type`, those that ask for class shares `prior`.
"""

from collections.abc import Callable

from hf_transfer.core.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from hf_transfer.core.registry import registered

VALIDATORS = {
    "dd": "hf_transfer.validators.dd:dd",
    "dev": "hf_transfer.validators.dev:dev",
    "entropy": "hf_transfer.validators.entropy:entropy",
    "information_maximization": "hf_transfer.validators.information_maximization:information_maximization",
    "mdd": "hf_transfer.validators.mdd:mdd",
    "snd": "hf_transfer.validators.snd:snd",
    "source_accuracy": "hf_transfer.validators.source_accuracy:source_accuracy",
    "source_risk": "hf_transfer.validators.source_risk:source_risk",
}
"""Name -> "module:function", imported when asked for."""
WORKING = {
    SINGLE_LABEL: ("information_maximization", "dev", "entropy", "mdd", "snd", "source_accuracy", "source_risk"),
    REGRESSION: ("dev", "dd", "source_risk"),
    MULTI_LABEL: ("dev", "source_risk"),
}
"""Problem type -> the validators that are defined for it, the usual one first."""


def choose_validator(name: str | None, problem_type: str) -> str:
    """The validator that is asked for, or else the usual one for the problem type.

    Args:
        name: a key of `VALIDATORS`, or None.
        problem_type: a key of `WORKING`.

    Raises:
        ValueError: no validator has this name, or it is not defined for the problem type.
    """
    working = WORKING[problem_type]
    if name is None:
        return working[0]
    find_validator(name)
    if name not in working:
        raise ValueError(
            f"the validator `{name}` is not defined for {problem_type}, which this model does; accepted: "
            f"{', '.join(working)}."
        )
    return name


def find_validator(name: str) -> Callable[..., float]:
    """The function of a validator.

    Raises:
        ValueError: no validator has this name.
    """
    return registered(VALIDATORS, name, "validator")
