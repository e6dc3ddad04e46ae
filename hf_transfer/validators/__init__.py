"""Scores that choose a checkpoint without target labels. Higher is better.

Every validator is a pure function `(features, logits, domain, labels=None) -> float` of one evaluation set:
features [N, D], logits [N, C], domain [N] (0 = source, 1 = target; None where all rows are target rows) and the labels
[N], of which only those of source rows are ever read.
"""

from collections.abc import Callable

from hf_transfer.functional.registered import registered

VALIDATORS = {
    "dev": "hf_transfer.validators.dev:dev",
    "entropy": "hf_transfer.validators.entropy:entropy",
    "information_maximization": "hf_transfer.validators.information_maximization:information_maximization",
    "mdd": "hf_transfer.validators.mdd:mdd",
    "snd": "hf_transfer.validators.snd:snd",
    "source_accuracy": "hf_transfer.validators.source_accuracy:source_accuracy",
}
"""Name -> "module:function", imported when asked for."""


def find_validator(name: str) -> Callable[..., float]:
    """The function of a validator.

    Raises:
        ValueError: no validator has this name.
    """
    return registered(VALIDATORS, name, "validator")
