"""The checks that a batch holds both domains, which a comparison of domains needs."""

from __future__ import annotations

import torch
from transformers.utils import logging

from hf_transfer.core.objective import SOURCE, TARGET, View

logger = logging.get_logger(__name__)


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
    if torch.is_grad_enabled() and smaller < at_least:
        logger.warning_once(
            f"A batch has {int(smaller)} rows of one domain and {at_least} are needed to compare them: the objectives "
            "that do are 0 on it. Leave `train_sampling_strategy` at random, or give your own sampler both domains."
        )
    return bool(smaller >= at_least)


def require_both_domains(view: View) -> None:
    """For methods whose steps alternate: a batch of one domain leaves a phase nothing to do.

    Raises:
        ValueError: the batch lacks source or target rows.
    """
    if not has_both_domains(view):
        raise ValueError(
            "every batch of a method whose steps alternate needs source and target rows: leave "
            "`train_sampling_strategy` at random, or give your own sampler both domains."
        )
