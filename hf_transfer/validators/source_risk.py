"""Risk on the labelled source rows, of every kind of task.

    score = -mean_i l(f(x_i), y_i) over source rows with a label

l is the task's loss (cross entropy, squared error, or binary cross entropy for several labels): `dev` with every
weight 1. It says nothing of the target: a baseline for the other validators. Give it held-out source rows.

Paper: the source risk of You et al., "Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation", ICML
2019, https://proceedings.mlr.press/v97/you19a.html, where it is what validation without the target would go by.
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.functional.environments import row_risks
from hf_transfer.validators.rows import labelled_source


def source_risk(
    features: Tensor,
    logits: Tensor,
    domain: Tensor | None,
    labels: Tensor | None = None,
    problem_type: str | None = None,
) -> float:
    """Minus the mean loss of the labelled source rows, at most 0.

    Args:
        features: [N, D], not read.
        logits: [N, C].
        domain: [N], 0 = source.
        labels: [N] classes, or [N] or [N, C] numbers or several labels; those of source rows are read.
        problem_type: of the task; told from the labels when left out.

    Raises:
        ValueError: there is no `domain`, no labels, or no labelled source row.
    """
    rows = labelled_source(domain, labels)
    return -row_risks(logits[rows].double(), labels[rows], problem_type).mean().item()
