"""The labelled rows of several sources, whose `domain` column numbers the environment they come from."""

from __future__ import annotations

from hf_transfer.objective import IGNORED_LABEL, View


def labelled_rows(view: View) -> View:
    """The rows with a label; their `domain` is the environment, any integer.

    Raises:
        ValueError: the batch has no labels or no `domain`.
    """
    if view.labels is None:
        raise ValueError("this batch has no labels: an environment's risk needs a `labels` column.")
    if view.domain is None:
        raise ValueError("this batch has no `domain`: give the dataset a `domain` column that numbers the sources.")
    labels = view.labels.reshape(len(view.labels), -1)
    return view.rows((labels != IGNORED_LABEL).all(dim=1))
