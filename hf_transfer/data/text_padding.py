"""On which side of a text a model's rows are filled up, so that what it says of one depends on no other row."""

from __future__ import annotations

from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging

logger = logging.get_logger(__name__)

LEFT_KINDS = frozenset({"xlnet"})
"""Models whose head reads the last token of a row, padding or not. All others are right with padding behind: positions
that count from the first token would be moved by padding in front.
"""
MASKLESS_KINDS = frozenset({"fnet"})
"""Models that read padding like any token."""


def settle_padding_side(
    tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, reads_every_token: bool = False
) -> None:
    """Let the tokenizer of a model that classifies texts or words pad on the side that this model asks for.

    Args:
        tokenizer: is changed.
        config: the model's.
        reads_every_token: rather than the text as a whole.
    """
    kind = config.model_type
    side = "left" if kind in LEFT_KINDS and not reads_every_token else "right"
    if tokenizer.padding_side != side:
        logger.warning(
            f"the tokenizer pads on the {tokenizer.padding_side}; {kind} is right with padding on the {side}."
        )
        tokenizer.padding_side = side
    if kind in MASKLESS_KINDS:
        logger.warning_once(
            f"{kind} reads padding like any token: what it says of a text depends on the rows beside it."
        )
