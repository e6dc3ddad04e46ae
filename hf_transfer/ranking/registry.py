"""From the name of a score to its class."""

from __future__ import annotations

from hf_transfer.core.registry import registered
from hf_transfer.ranking.score import TransferabilityScore


def score_class(name: str) -> type[TransferabilityScore]:
    """The class registered under `name` in `hf_transfer.ranking.SCORES`.

    Raises:
        ValueError: when there is none.
    """
    from hf_transfer.ranking import SCORES

    if name not in SCORES:
        raise ValueError(f"`score` should be one of {sorted(SCORES)}, got {name!r}.")
    return registered(SCORES, name, "score")
