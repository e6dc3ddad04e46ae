"""Accuracy on the labelled source rows.

    score = mean_i 1[argmax logits_i = y_i] over source rows with a label

It says nothing of the target: a baseline for the other validators. Give it held-out source rows.

Paper: as a validator in Musgrave et al., "Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised
Domain Adaptation", https://huggingface.co/papers/2208.07360
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.validators.rows import labelled_source


def source_accuracy(features: Tensor, logits: Tensor, domain: Tensor | None, labels: Tensor | None = None) -> float:
    """Share of the labelled source rows that are predicted right, in [0, 1].

    Args:
        features: [N, D], not read.
        logits: [N, C].
        domain: [N], 0 = source.
        labels: [N] integers; those of source rows are read.

    Raises:
        ValueError: there is no `domain`, no labels, or no labelled source row; or the labels are not class numbers.
    """
    rows = labelled_source(domain, labels)
    if labels.is_floating_point() or labels.ndim != 1:
        raise ValueError("this validator counts right classes, and the labels are numbers to predict.")
    return (logits[rows].argmax(dim=1) == labels[rows]).double().mean().item()
