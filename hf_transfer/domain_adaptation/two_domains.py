"""The check that a batch holds both domains, which a comparison of domains needs."""

from __future__ import annotations

import torch

from hf_transfer.objective import SOURCE, TARGET, View


def has_both_domains(view: View, at_least: int = 1) -> bool:
    """Whether the batch has at least so many source rows and target rows.

    Args:
        view: the batch.
        at_least: how many of each; 2 for statistics such as a covariance.

    Raises:
        ValueError: the batch has no `domain`.
    """
    if view.domain is None:
        raise ValueError("this batch has no `domain`: give the dataset a `domain` column (0 = source, 1 = target).")
    smaller = torch.minimum((view.domain == SOURCE).sum(), (view.domain == TARGET).sum())
    return bool(smaller >= at_least)
