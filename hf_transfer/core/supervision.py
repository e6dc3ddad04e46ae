"""Where the task loss of a training comes from: the labels of the units, the model itself, or nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transfer.core.task_loss import IGNORED_LABEL, problem_type_of, task_loss


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
    """The loss of the units that have a label; which one, `hf_transfer.core.task_loss` says."""

    needs = frozenset({"logits"})

    def __call__(self, view: Any, outputs: Mapping[str, Any], config: Any) -> Tensor | None:
        if view.labels is None:
            return None
        problem_type = problem_type_of(config, view.labels)
        return task_loss(view.logits, view.labels, problem_type, view.label_smoothing, view.unit_weights)


class FromModel(TaskLoss):
    """The loss that the model returns: masked or causal language modelling, masked images, semantic segmentation."""

    asks_model = True

    def __call__(self, view: Any, outputs: Mapping[str, Any], config: Any) -> Tensor | None:
        return outputs.get("loss")


class FromSpans(TaskLoss):
    """The loss of question answering, from scores of every token as the first and as the last one of the answer.

        loss = (1/2) (CE(start_logits, first) + CE(end_logits, last))

    As models of transformers compute it, but padding has no share in the softmax, so that the other rows of a batch
    change nothing.
    """

    def __call__(self, view: Any, outputs: Mapping[str, Any], config: Any) -> Tensor | None:
        if view.labels is None:
            return None
        scores = span_scores(outputs, view.inputs.get("attention_mask")).float()  # [B, T, 2]
        losses = F.cross_entropy(scores, view.labels, ignore_index=IGNORED_LABEL, reduction="none")  # [B, 2]
        return losses.sum() / (view.labels != IGNORED_LABEL).sum().clamp(min=1)


def span_scores(outputs: Mapping[str, Any], mask: Tensor | None = None) -> Tensor:
    """Scores of every token as the first and as the last one of the answer, [B, T, 2]; -inf where the mask is 0.

    Args:
        outputs: of a model for question answering.
        mask: attention mask [B, T]; virtual tokens of an adapter stand in front and are left out.
    """
    scores = torch.stack([outputs["start_logits"], outputs["end_logits"]], dim=-1)
    if mask is None:
        return scores
    return scores[:, -mask.shape[1] :].masked_fill(~mask.bool().unsqueeze(-1), -torch.inf)


class NoTask(TaskLoss):
    """No task: the objectives alone are trained."""
