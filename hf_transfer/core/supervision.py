"""Where the task loss of a training comes from: the labels of the units, the model itself, or nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hf_transfer.core.task_loss import problem_type_of, task_loss


class TaskLoss:
    """The loss of the task beside the objectives'."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """What it reads of a view."""
    asks_model: ClassVar[bool] = False
    """Whether the model is given the labels, so that it computes its own loss."""

    def __call__(self, view: Any, outputs: Mapping[str, Any], config: Any) -> Tensor | None:
        """The mean loss of a batch, a scalar; None where there is none.

        Args:
            view: the units of the batch, see `hf_transfer.core.objective.View`.
            outputs: what the model returned.
            config: the model's configuration.
        """
        return None


class FromLabels(TaskLoss):
    """The loss of the units that have a label; which one, `hf_transfer.core.task_loss` says.

    Args:
        label_smoothing: share of the target distribution spread over all classes.
    """

    needs = frozenset({"logits"})

    def __init__(self, label_smoothing: float = 0.0):
        self.label_smoothing = label_smoothing

    def __call__(self, view: Any, outputs: Mapping[str, Any], config: Any) -> Tensor | None:
        if view.labels is None:
            return None
        return task_loss(view.logits, view.labels, problem_type_of(config, view.labels), self.label_smoothing)


class FromModel(TaskLoss):
    """The loss that the model returns: masked or causal language modelling, masked images, semantic segmentation."""

    asks_model = True

    def __call__(self, view: Any, outputs: Mapping[str, Any], config: Any) -> Tensor | None:
        return outputs.get("loss")


class NoTask(TaskLoss):
    """No task: the objectives alone are trained."""
