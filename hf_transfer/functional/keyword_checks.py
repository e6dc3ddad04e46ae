"""Range checks of numeric keywords, one error text for all methods: what, got, accepted."""

from __future__ import annotations


def require_positive(**keywords: float) -> None:
    """Raises ValueError for the first keyword that is not above 0."""
    for name, value in keywords.items():
        if not value > 0:
            raise ValueError(f"`{name}` should be positive, got {value}.")


def require_non_negative(**keywords: float) -> None:
    """Raises ValueError for the first keyword below 0."""
    for name, value in keywords.items():
        if not value >= 0:
            raise ValueError(f"`{name}` should be at least 0, got {value}.")


def require_share(**keywords: float) -> None:
    """Raises ValueError for the first keyword outside [0, 1)."""
    for name, value in keywords.items():
        if not 0 <= value < 1:
            raise ValueError(f"`{name}` should be in [0, 1), got {value}.")
