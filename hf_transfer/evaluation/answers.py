"""What a model's outputs say of rows: metrics where labels are known, and answers where they are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, PreTrainedConfig

from hf_transfer.core.task_loss import (
    IGNORED_LABEL,
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    predicted,
    probabilities,
    problem_type_of,
)
from hf_transfer.core.task_metrics import task_metrics

LABELS_BETWEEN = "; "


def metrics_of(config: PreTrainedConfig) -> Callable[[EvalPrediction], dict[str, float]]:
    """`compute_metrics` of a Trainer: those of the model's problem type, over the rows that have a label.

    Args:
        config: of the model; a trainer settles the `problem_type` in it before it evaluates anything.
    """

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        labels = np.asarray(prediction.label_ids)
        return task_metrics(prediction.predictions, labels, problem_type_of(config, labels))

    return compute


def labelled_units(outputs: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [N, C] and labels [N] of the units that have a label, of those of rows: [B, T, C] and [B, T].

    Where rows are the units ([B, C]), they come back as they are.
    """
    outputs, labels = np.asarray(outputs), np.asarray(labels)
    if outputs.ndim != labels.ndim + 1 or labels.ndim < 2:
        return outputs, labels
    known = labels != IGNORED_LABEL
    return outputs[known], labels[known]


def answers_of(logits: torch.Tensor, config: Any) -> dict[str, list]:
    """Columns of a table, by name.

    Args:
        logits: [N, C].
        config: of the model: problem type and names of the classes.
    """
    kind = config.problem_type or (REGRESSION if config.num_labels == 1 else SINGLE_LABEL)
    names = [config.id2label[index] for index in range(config.num_labels)]
    answers = predicted(logits, kind)
    if kind == REGRESSION:
        numbers = answers.reshape(len(logits), -1).T.tolist()
        return {"prediction" if len(numbers) == 1 else f"prediction_{n}": column for n, column in enumerate(numbers)}
    shares = probabilities(logits, kind)
    if kind == MULTI_LABEL:
        chosen = [LABELS_BETWEEN.join(np.asarray(names)[row.bool().numpy()]) for row in answers]
        return {"prediction": chosen, **dict(zip(names, shares.T.tolist(), strict=True))}
    best = shares.gather(1, answers.unsqueeze(1)).squeeze(1)
    return {"prediction": [names[index] for index in answers.tolist()], "probability": best.tolist()}
