"""The labelled rows of a batch; of several sources the `domain` column numbers the environment."""

from __future__ import annotations

from torch import Tensor

from hf_transfer.core.objective import View
from hf_transfer.core.task_loss import known_rows


def environments_of(view: View) -> Tensor:
    """The environment of every row, [B], any integers.

    Raises:
        ValueError: the batch has no `domain`.
    """
    if view.domain is None:
        raise ValueError("this batch has no `domain`: give the dataset a `domain` column that numbers the sources.")
    return view.domain


def labelled_rows(view: View) -> View:
    """The rows with a label; their `domain` is the environment, any integer.

    Raises:
        ValueError: the batch has no labels or no `domain`.
    """
    if view.labels is None:
        raise ValueError("this batch has no labels: an environment's risk needs a `labels` column.")
    environments_of(view)
    return view.rows(known_rows(view.labels))
