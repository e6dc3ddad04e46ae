"""The check that a batch holds both domains, which a comparison of domains needs."""

from __future__ import annotations

from hf_transfer.objective import SOURCE, TARGET, View


def has_both_domains(view: View) -> bool:
    """Whether the batch has at least one source row and one target row.

    Raises:
        ValueError: the batch has no `domain`.
    """
    if view.domain is None:
        raise ValueError("this batch has no `domain`: give the dataset a `domain` column (0 = source, 1 = target).")
    return bool((view.domain == SOURCE).any() and (view.domain == TARGET).any())
