"""Selection of the rows a validator reads."""

from __future__ import annotations

from torch import Tensor

from hf_transfer.objective import SOURCE, TARGET


def target_rows(values: Tensor, domain: Tensor | None) -> Tensor:
    """The rows [N_t, ...] of `values` [N, ...] in the target domain; all rows where `domain` is None.

    Raises:
        ValueError: there is none.
    """
    return _rows(values, domain, TARGET, "target")


def source_rows(values: Tensor, domain: Tensor | None) -> Tensor:
    """The rows [N_s, ...] of `values` [N, ...] in the source domain.

    Raises:
        ValueError: there is none.
    """
    if domain is None:
        raise ValueError("this validator compares the domains and needs `domain` [N], got None.")
    return _rows(values, domain, SOURCE, "source")


def _rows(values: Tensor, domain: Tensor | None, wanted: int, name: str) -> Tensor:
    chosen = values if domain is None else values[domain == wanted]
    if not len(chosen):
        raise ValueError(f"this validator needs {name} rows (`domain` == {wanted}) and the evaluation set has none.")
    return chosen
