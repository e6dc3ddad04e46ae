"""Labels of one data set numbered as those of another, by name or by value where that can be known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from transformers.utils import logging

from hf_transfer.core.task_loss import IGNORED_LABEL
from hf_transfer.data.label_kinds import LabelKind, Read

logger = logging.get_logger(__name__)

BOOLEANS = ("False", "True")
PAIRS = (
    ("false", "true"),
    ("f", "t"),
    ("0", "1"),
    ("no", "yes"),
    ("n", "y"),
    ("negative", "positive"),
    ("neg", "pos"),
    ("-", "+"),
    ("off", "on"),
    ("absent", "present"),
    ("bad", "good"),
    ("wrong", "right"),
    ("incorrect", "correct"),
    ("invalid", "valid"),
    ("inactive", "active"),
    ("abnormal", "normal"),
    ("fail", "pass"),
)
"""Names of two classes of which the first is said of False and the second of True."""
DENIALS = ("not", "no", "non")
"""Before a space, `_` or `-` and the name of the other class."""


def value_of(name: str) -> str | None:
    """A name that is a number as such, `1` for 1.0 and 01; None for a word."""
    try:
        number = float(name)
    except ValueError:
        return None
    if not math.isfinite(number) or "_" in name:  # Python reads 1_0 as 10
        return None
    return str(int(number)) if number.is_integer() else str(number)


def by_value(names: Sequence[str] | None) -> dict[str, int] | None:
    """The indices of the names that are numbers, by these; None where no name is one, or two are the same number.

    Args:
        names: of classes.
    """
    values = [value_of(name) for name in names or ()]
    known = [value for value in values if value is not None]
    if not known or len(set(known)) < len(known):
        exact = {name: index for index, name in enumerate(names or ()) if name.isdigit()}
        return exact or None
    return {value: index for index, value in enumerate(values) if value is not None}


def truth_indices(names: Sequence[str]) -> tuple[int, int] | None:
    """Which of two classes False and True are; None where their names do not tell.

    Args:
        names: of the classes.
    """
    if len(names) != len(BOOLEANS):
        return None
    plain = [name.strip().casefold() for name in names]
    for one, other in ((0, 1), (1, 0)):
        denied = [f"{word}{join}{plain[other]}" for word in DENIALS for join in (" ", "_", "-")]
        if (plain[one], plain[other]) in PAIRS or plain[one] in denied:
            return one, other
    return None


def as_indices(read: Read, kind: LabelKind, role: str) -> np.ndarray:
    """Classes [N] as indices in the names of `kind`.

    Args:
        read: whole numbers are matched by value where a name of `kind` is a number, and else are indices.
        kind: of the other labels.
        role: what the rows are for, for messages.

    Raises:
        ValueError: a class that `kind` has not, another number of them, or True and False for two other names.
    """
    names, own = kind.class_names, read.kind.class_names or ()
    numbered = by_value(names)
    if read.given is not None and numbered is None:
        if names is not None:
            logger.warning(f"the {role} dataset has numbers in the place of classes, read as those of {_told(names)}.")
        return read.given
    if names is None:
        if len(own) != kind.outputs:
            raise ValueError(f"the {role} dataset has {len(own)} classes and the model {kind.outputs}.")
        return read.values
    if own == BOOLEANS and not set(own) <= set(names):
        return np.array(_truth(names, role))[read.values]
    numbers = numbered if read.given is not None else {name: index for index, name in enumerate(names)}
    present = {own[index] for index in np.unique(read.values[read.values >= 0])} if read.given is not None else own
    unknown = [name for name in own if name in present and name not in numbers]
    if unknown:
        raise ValueError(
            f"the {role} dataset has {len(own)} classes, and these are none of the {len(names)} that the model is to "
            f"tell apart ({', '.join(list(names)[:10])}): {', '.join(unknown[:10])}."
        )
    indices = np.array([numbers.get(name, IGNORED_LABEL) for name in own] or [IGNORED_LABEL])
    return np.where(read.values < 0, read.values, indices[np.maximum(read.values, 0)])


def _told(names: Sequence[str]) -> str:
    """The first classes with their numbers."""
    told = ", ".join(f"{number} {name}" for number, name in enumerate(names[:10]))
    return f"{told}, ..." if len(names) > 10 else told


def _truth(names: Sequence[str], role: str) -> tuple[int, int]:
    found = truth_indices(names)
    if found is None:
        raise ValueError(
            f"the {role} dataset has the labels True and False, and which of the classes {', '.join(names[:10])} "
            "they mean is not known: write the names of the classes in their place."
        )
    return found


def as_several(read: Read, kind: LabelKind, role: str, source: str) -> np.ndarray:
    """Several labels a row [N, C] in the order of the names of `kind`.

    Args:
        read: with names or without.
        kind: of the other labels.
        role: what the rows are for, for messages.
        source: whose labels `kind` describes, likewise.

    Raises:
        ValueError: a label that `kind` has not.
    """
    names, own = kind.class_names, read.kind.class_names
    if own is None or names is None:
        # of lists of class numbers the highest ones may be missing here
        if read.kind.from_numbers and read.values.ndim == 2 and read.values.shape[1] < kind.outputs:
            return np.pad(read.values, ((0, 0), (0, kind.outputs - read.values.shape[1])))
        return read.values
    unknown = [name for name in own if name not in names]
    if unknown:
        raise ValueError(
            f"the {role} dataset has labels that {source} does not know ({', '.join(names[:10])}): "
            f"{', '.join(unknown[:10])}."
        )
    values = np.zeros((len(read.values), len(names)), dtype=np.float32)
    values[:, [names.index(name) for name in own]] = read.values
    return values
