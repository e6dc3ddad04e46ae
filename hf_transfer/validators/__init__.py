"""Scores that choose a checkpoint without target labels. Higher is better.

Every validator is a pure function `(features, logits, domain, labels=None) -> float` of one evaluation set:
features [N, D], logits [N, C], domain [N] (0 = source, 1 = target; None where all rows are target rows) and the labels
([N] classes, or floats [N] or [N, C] of a regression), of which only those of source rows are ever read.
"""

from collections.abc import Callable

from hf_transfer.functional.registered import registered

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
    "classes": ("information_maximization", "dev", "entropy", "mdd", "snd", "source_accuracy", "source_risk"),
    "numbers": ("dev", "dd", "source_risk"),
    "several labels": (),
}
"""What a model predicts -> the validators that can score it, the usual one first."""


def choose_validator(name: str | None, predicts: str) -> str | None:
    """The validator that is asked for, or else the usual one for what the model predicts; None where there is none.

    Args:
        name: a key of `VALIDATORS`, or None.
        predicts: a key of `WORKING`.

    Raises:
        ValueError: no validator has this name, or it cannot score what the model predicts.
    """
    working = WORKING[predicts]
    if name is None:
        return working[0] if working else None
    find_validator(name)
    if name not in working:
        accepted = f"accepted: {', '.join(working)}" if working else "none does"
        raise ValueError(
            f"the validator `{name}` does not work for {predicts}, which this model predicts; {accepted}."
        )
    return name


def find_validator(name: str) -> Callable[..., float]:
    """The function of a validator.

    Raises:
        ValueError: no validator has this name.
    """
    return registered(VALIDATORS, name, "validator")
