"""Risk on the labelled source rows, of classes and of numbers alike.

    score = -mean_i l(f(x_i), y_i) over source rows with a label

l is the cross entropy for classes, the squared error for numbers: `dev` with every weight 1. It says nothing of the
target: a baseline for the other validators. Give it held-out source rows.

Paper: the source risk of You et al., "Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation", ICML
2019, https://proceedings.mlr.press/v97/you19a.html, where it is what validation without the target would go by.
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.functional.environments import row_risks
from hf_transfer.validators.rows import labelled_source


def source_risk(features: Tensor, logits: Tensor, domain: Tensor | None, labels: Tensor | None = None) -> float:
    """Minus the mean loss of the labelled source rows, at most 0.

    Args:
        features: [N, D], not read.
        logits: [N, C].
        domain: [N], 0 = source.
        labels: [N] classes, or floats [N] or [N, C] to predict; those of source rows are read.

    Raises:
        ValueError: there is no `domain`, no labels, or no labelled source row.
    """
    rows = labelled_source(domain, labels)
    return -row_risks(logits[rows].double(), labels[rows]).mean().item()
