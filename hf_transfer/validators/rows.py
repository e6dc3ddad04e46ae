"""Selection of the rows a validator reads."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from hf_transfer.core.objective import IGNORED_LABEL, SOURCE, TARGET


def target_rows(values: Tensor, domain: Tensor | None) -> Tensor:
    """The rows [N_t, ...] of `values` [N, ...] in the target domain; all rows where `domain` is None.

    Raises:
        ValueError: there is none.
    """
    chosen = values if domain is None else values[domain == TARGET]
    if not len(chosen):
        raise ValueError(f"this validator needs target rows (`domain` == {TARGET}) and the evaluation set has none.")
    return chosen


def labelled_source(domain: Tensor | None, labels: Tensor | None) -> Tensor:
    """Which rows are source rows with a label, [N] bool.

    Args:
        domain: [N].
        labels: [N], or [N, K] of a regression with several numbers.

    Raises:
        ValueError: there is no `domain`, no labels, or no such row.
    """
    if domain is None or labels is None:
        missing = "domain" if domain is None else "labels"
        raise ValueError(f"this validator reads labelled source rows; `{missing}` is None.")
    rows = (domain == SOURCE) & (labels.reshape(len(labels), -1) != IGNORED_LABEL).all(dim=1)
    if not rows.any():
        raise ValueError("this validator reads labelled source rows and the evaluation set has none.")
    return rows


def split_halves(domain: np.ndarray, seed: int) -> np.ndarray:
    """A random half of the rows of each domain, [N] bool.

    Args:
        domain: [N].
        seed: of the choice.

    Raises:
        ValueError: a domain has fewer than two rows.
    """
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(domain), dtype=bool)
    for value in (SOURCE, TARGET):
        rows = np.flatnonzero(domain == value)
        if len(rows) < 2:
            raise ValueError(
                f"this validator fits on half of the rows and measures on the rest; domain {value} has {len(rows)}."
            )
        chosen[generator.permutation(rows)[: len(rows) // 2]] = True
    return chosen
