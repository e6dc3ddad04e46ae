"""The problem type of a task, decided in one place, and what follows from it: loss, probabilities, classes, draws.

    single_label_classification  y ~ Categorical(softmax z)   loss = -log softmax(z)_y
    multi_label_classification   y_c ~ Bernoulli(sigmoid z_c) loss = -(1/C) sum_c log p(y_c)
    regression                   y_c ~ Normal(z_c, 1)         loss = (1/C) sum_c (z_c - y_c)^2

z are the C outputs of a row. These are the names and the losses of transformers.

What is not declared is decided so: one output is a regression; labels [N] of whole numbers are classes; labels [N, C]
that are all 0 or 1 are several labels a row, and a regression otherwise.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transfer.core.problem_types import (
    ANY_PROBLEM,  # noqa: F401  what reads problem types imports their names from here
    MULTI_LABEL,
    PROBLEM_TYPES,
    REGRESSION,
    SINGLE_LABEL,
)

IGNORED_LABEL = -100
"""The label of a row whose class is unknown or must not be read (unlabelled target rows in domain adaptation)."""


def declared_problem_type(config: Any) -> str | None:
    """What a model's configuration says without any labels; None for several outputs of no declared kind.

    Args:
        config: with `problem_type` and `num_labels`.

    Raises:
        ValueError: no such problem type, or a single class.
    """
    declared, outputs = getattr(config, "problem_type", None), config.num_labels
    if declared is None:
        return REGRESSION if outputs == 1 else None
    if declared not in PROBLEM_TYPES:
        raise ValueError(f"`problem_type` should be one of {list(PROBLEM_TYPES)}, got {declared!r}.")
    if declared == SINGLE_LABEL and outputs == 1:
        raise ValueError(
            "the model is declared a single-label classifier and has one output, whose softmax is always 1: load it "
            'with num_labels=2, or with problem_type="multi_label_classification" for one yes-or-no label.'
        )
    return declared


def problem_type_of(config: Any, labels: Tensor | np.ndarray, name: str = "labels") -> str:
    """The problem type of a model on these labels: what its configuration declares, or else what the labels are.

    Args:
        config: with `problem_type` and `num_labels`.
        labels: [N] or [N, C], `IGNORED_LABEL` where unknown; where nothing is declared, those of the whole data set.
        name: of the labels, for the message.

    Raises:
        ValueError: labels whose shape or type does not fit the model, or that leave a doubt.
    """
    labels = torch.as_tensor(labels)
    declared = declared_problem_type(config)
    decided = declared or _undeclared(labels, config.num_labels, name)
    _check_form(labels, decided, config.num_labels, name)
    return decided


def problem_type_of_outputs(logits: Tensor, labels: Tensor) -> str:
    """The problem type where no configuration is at hand, from logits [B, C] and labels [B] or [B, C].

    Raises:
        ValueError: labels whose shape does not fit, or that leave a doubt.
    """
    return problem_type_of(SimpleNamespace(problem_type=None, num_labels=logits.shape[1]), labels)


def _undeclared(labels: Tensor, outputs: int, name: str) -> str:
    if labels.ndim > 1:
        return MULTI_LABEL if ((labels == 0) | (labels == 1) | (labels == IGNORED_LABEL)).all() else REGRESSION
    if labels.is_floating_point():
        raise ValueError(
            f"{name}: one number with a decimal point a row ({labels.dtype}), and the model has {outputs} outputs. "
            "For a regression load the model with num_labels=1; for classes make the labels whole numbers."
        )
    return SINGLE_LABEL


def _check_form(labels: Tensor, problem_type: str, outputs: int, name: str) -> None:
    """Raises ValueError where labels [N, ...] cannot be the labels of `outputs` outputs."""
    shape, whole = list(labels.shape), not labels.is_floating_point()
    if problem_type == SINGLE_LABEL:
        if labels.ndim != 1 or not whole:
            raise ValueError(
                f"{name}: single-label classification reads one whole class number a row, got {labels.dtype} of shape "
                f'{shape}. Load the model with problem_type="{MULTI_LABEL}" or "{REGRESSION}" if that is what the '
                "labels are, or make them class numbers."
            )
    elif labels.numel() != len(labels) * outputs:
        wanted = "a 0 or 1 for each class" if problem_type == MULTI_LABEL else "one number for each output"
        raise ValueError(
            f"{name}: {problem_type} reads {wanted}, of shape [rows, {outputs}], got {shape}. Load the model with "
            "num_labels as many as a row has labels"
            + (", or without `problem_type` if the labels are classes." if labels.ndim == 1 else ".")
        )


def known_rows(labels: Tensor) -> Tensor:
    """Which rows have a label, [B] bool, of labels [B] or [B, C]."""
    return (labels.reshape(len(labels), -1) != IGNORED_LABEL).all(dim=1)


def row_losses(logits: Tensor, labels: Tensor, problem_type: str, label_smoothing: float = 0.0) -> Tensor:
    """The loss of every row, [B]; 0 where the label is unknown.

    A class that the model rules out (a logit of -inf) adds nothing and gets no share of the smoothing; a row whose
    label it is has no finite loss.

    Args:
        logits: [B, C].
        labels: [B] or [B, C], of any type that holds the numbers.
        problem_type: one of `PROBLEM_TYPES`.
        label_smoothing: share of the target distribution spread over all classes, of single-label classification.
    """
    if problem_type == SINGLE_LABEL:
        losses = F.cross_entropy(logits, labels.long(), ignore_index=IGNORED_LABEL, reduction="none")
        if label_smoothing == 0:
            return losses
        possible = ~logits.isneginf()
        spread = -logits.log_softmax(dim=1).where(possible, 0.0).sum(dim=1) / possible.sum(dim=1)
        return (1 - label_smoothing) * losses + label_smoothing * spread.where(known_rows(labels), 0.0)
    targets = labels.reshape(logits.shape).to(logits.dtype)
    if problem_type == MULTI_LABEL:
        ruled_out = logits.isneginf() & (targets == 0)  # whose loss is 0, which the formula makes inf - inf
        logits = logits.masked_fill(ruled_out, 0.0)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").masked_fill(ruled_out, 0.0)
    else:
        losses = F.mse_loss(logits, targets, reduction="none")
    return losses.mean(dim=1).where(known_rows(labels), 0.0)


def task_loss(
    logits: Tensor, labels: Tensor, problem_type: str, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Mean loss of the rows that have a label, each times its weight; a zero with a graph where none has a label.

    Args:
        logits, labels, problem_type, label_smoothing: as of `row_losses`.
        weights: [B], or None for all ones.
    """
    losses = row_losses(logits, labels, problem_type, label_smoothing)
    losses = losses if weights is None else losses * weights
    # Not the mean of the known rows, which would not be a number where there is none.
    return losses.sum() / known_rows(labels).sum().clamp(min=1)


def probabilities(logits: Tensor, problem_type: str) -> Tensor:
    """[B, C]: of the classes of a row, which sum to 1, or of each of several labels.

    Raises:
        ValueError: of a regression, which gives numbers and no probabilities.
    """
    if problem_type == REGRESSION:
        raise ValueError("a regression predicts numbers and gives them no probabilities.")
    return logits.softmax(dim=-1) if problem_type == SINGLE_LABEL else logits.sigmoid()


def predicted(logits: Tensor, problem_type: str) -> Tensor:
    """What the outputs [B, C] say: the class [B], which labels hold ([B, C] of 0 and 1), or the numbers [B, C]."""
    if problem_type == SINGLE_LABEL:
        return logits.argmax(dim=-1)
    return (logits > 0).long() if problem_type == MULTI_LABEL else logits


def draw_labels(logits: Tensor, problem_type: str, generator: torch.Generator) -> Tensor:
    """Labels drawn from a model's own predictions, with no gradient.

    Args:
        logits: [B, C].
        problem_type: one of `PROBLEM_TYPES`.
        generator: of the CPU; the same one draws the same labels on every device.

    Returns:
        [B] classes; [B, C] of 0 and 1; or [B, C] numbers around the outputs with variance 1.
    """
    logits = logits.detach()
    if problem_type == REGRESSION:
        return logits + torch.randn(logits.shape, generator=generator).to(logits.device)
    p = probabilities(logits, problem_type).cpu()
    drawn = (
        torch.bernoulli(p, generator=generator)
        if problem_type == MULTI_LABEL
        else torch.multinomial(p, 1, generator=generator).squeeze(1)
    )
    return drawn.to(logits.device)


def negative_log_likelihood(logits: Tensor, labels: Tensor, problem_type: str) -> Tensor:
    """Sum of -log p(y | z) over the rows and, of several labels or numbers, over these; up to a constant. A scalar.

    Args:
        logits: [B, C].
        labels: as `draw_labels` gives them.
        problem_type: one of `PROBLEM_TYPES`.
    """
    if problem_type == REGRESSION:
        return 0.5 * (logits - labels).square().sum()
    outputs = 1 if problem_type == SINGLE_LABEL else logits.shape[1]
    return outputs * row_losses(logits, labels, problem_type).sum()
