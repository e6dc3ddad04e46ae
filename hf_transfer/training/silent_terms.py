"""Terms of the loss that were 0 in every step: a threshold that nothing reached, rows that were never there."""

from __future__ import annotations

from collections.abc import Mapping

from accelerate import Accelerator
from torch import Tensor
from transformers.utils import logging

logger = logging.get_logger(__name__)


def tell_silent_terms(ever: Mapping[str, Tensor], accelerator: Accelerator) -> None:
    """Warn of the objectives that trained nothing.

    Args:
        ever: name of a term -> whether this process saw it differ from 0 in a step.
        accelerator: of all processes.
    """
    for name, differed in ever.items():
        if not accelerator.reduce(differed.float(), reduction="sum").item():
            logger.warning(
                f"`{name}` was 0 in every step, so that the model is what it would be without it: look at its "
                "keywords, such as a `threshold` that no row or box reached, and at the rows that it needs."
            )
