"""A further set of labels of the training rows: what its labels are and how many outputs tell them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_transfer.core.task_loss import PROBLEM_TYPES, REGRESSION, SINGLE_LABEL


@dataclass(frozen=True)
class LabelSet:
    """What the labels of one column are.

    Args:
        problem_type: one of `hf_transfer.core.task_loss.PROBLEM_TYPES`.
        outputs: classes, labels that may hold at once, or numbers to predict.
    """

    problem_type: str
    outputs: int


def label_sets_of(columns: Mapping[str, Any]) -> dict[str, LabelSet]:
    """Label sets by column, from `{digit: 10, angle: regression, tags: {multi_label_classification: 5}}`.

    Args:
        columns: a number of classes, `regression` for one number, or a problem type and its number of outputs.

    Raises:
        ValueError: no column, or what is said of one is none of these.
    """
    if not isinstance(columns, Mapping) or not columns:
        raise ValueError(f"`columns` should say what labels each column holds, {ACCEPTED}; got {columns!r}.")
    return {str(column): _label_set(column, said) for column, said in columns.items()}


ACCEPTED = "such as {digit: 10, angle: regression, tags: {multi_label_classification: 5}}"


def _label_set(column: str, said: Any) -> LabelSet:
    if said == REGRESSION:
        return LabelSet(REGRESSION, 1)
    spec = said if isinstance(said, Mapping) else {SINGLE_LABEL: said}
    problem_type, outputs = next(iter(spec.items())) if len(spec) == 1 else ("", 0)
    is_number = isinstance(outputs, int) and not isinstance(outputs, bool)
    least = 2 if problem_type == SINGLE_LABEL else 1
    if problem_type not in PROBLEM_TYPES or not is_number or outputs < least:
        raise ValueError(
            f"`columns`: `{column}` should be a number of classes of at least 2, `{REGRESSION}`, or a problem type of "
            f"{list(PROBLEM_TYPES)} and its number of outputs, {ACCEPTED}; got {said!r}."
        )
    return LabelSet(problem_type, outputs)
