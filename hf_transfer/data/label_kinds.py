"""What the labels of a data set are, and labels as they were read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hf_transfer.core.task_loss import MULTI_LABEL, SINGLE_LABEL


@dataclass(frozen=True)
class LabelKind:
    """What the labels of a data set are.

    Args:
        problem_type: one of `hf_transfer.core.task_loss.PROBLEM_TYPES`.
        outputs: how many numbers a model is to give: classes, labels that may hold at once, or values.
        class_names: of the classes or labels, where they have names.
        from_numbers: whether several labels a row were lists of class numbers, and not of 0 and 1.
    """

    problem_type: str
    outputs: int
    class_names: tuple[str, ...] | None = None
    from_numbers: bool = field(default=False, compare=False)

    def in_words(self) -> str:
        """A phrase for the log."""
        names = ", ".join((self.class_names or ())[:10]) + (", ..." if len(self.class_names or ()) > 10 else "")
        if self.problem_type == SINGLE_LABEL:
            return f"{self.outputs} classes ({names})"
        if self.problem_type == MULTI_LABEL:
            return f"{self.outputs} labels that may hold at once" + (f" ({names})" if names else "")
        return "a number to predict" if self.outputs == 1 else f"{self.outputs} numbers to predict"


@dataclass(frozen=True)
class Read:
    """Labels [N] or [N, C] in their own numbering; `given` are whole numbers before they were numbered, else None."""

    kind: LabelKind
    values: np.ndarray
    given: np.ndarray | None = None
