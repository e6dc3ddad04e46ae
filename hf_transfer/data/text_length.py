"""How many tokens a model can read, and whether it knows every token that its tokenizer gives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedConfig
from transformers.tokenization_utils_base import LARGE_INTEGER
from transformers.utils import logging

logger = logging.get_logger(__name__)

TEXT_MAX_LENGTH = "text_max_length"
"""Of a saved model: tokens after which its training cut a text, where that was asked for."""

OFFSET_KINDS = frozenset(
    {
        "altclip_text_model",
        "bridgetower_text_model",
        "camembert",
        "clap_text_model",
        "data2vec-text",
        "esm",
        "ibert",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Models that number the positions of a text from `padding_idx + 1` on, as fairseq did: a table of 514 rows holds 512
tokens."""
MPNET_PADDING = 1
"""MPNet's positions start behind this number, whatever its configuration says of the padding token."""


def text_positions(config: PreTrainedConfig) -> int | None:
    """For how many tokens a model has positions; None where its positions are relative, or it names no limit.

    Args:
        config: the model's, whose text part counts where there are several.
    """
    config = config.get_text_config()
    rows = getattr(config, "max_position_embeddings", None)
    # XLNet says -1 for no limit; DeBERTa without absolute positions has a table of distances, which it clips.
    if not isinstance(rows, int) or rows < 1 or getattr(config, "position_biased_input", True) is False:
        return None
    if config.model_type not in OFFSET_KINDS:
        return rows
    padding = MPNET_PADDING if config.model_type == "mpnet" else getattr(config, "pad_token_id", None)
    return rows - (1 if padding is None else padding) - 1


def longest_text(config: PreTrainedConfig, tokenizer: Any, max_length: int | None) -> int | None:
    """The least of what is asked for, what the tokenizer allows and what the model has positions for.

    Args:
        config: the model's.
        tokenizer: the model's.
        max_length: tokens that the user asks for.

    Returns:
        Tokens of a row, special ones included; None where nobody names a limit.
    """
    limits = (max_length, getattr(tokenizer, "model_max_length", None), text_positions(config))
    # A tokenizer that knows no limit says 10^30.
    return min((limit for limit in limits if limit is not None and 0 < limit < LARGE_INTEGER), default=None)


def reading_length(config: PreTrainedConfig, tokenizer: Any, max_length: int | None) -> int | None:
    """`longest_text` of what is asked for, or else of the length that the training named: texts are read as then.

    Args:
        config: the model's.
        tokenizer: the model's.
        max_length: tokens that the user asks for.
    """
    trained = getattr(config, TEXT_MAX_LENGTH, None)
    if max_length is None and trained is not None:
        logger.warning_once(
            f"texts are cut after {trained} tokens, as in the training of this model (`max_length` says another "
            "length)."
        )
        max_length = trained
    return longest_text(config, tokenizer, max_length)


def with_limit(tokenizer: Any, config: PreTrainedConfig) -> Any:
    """The tokenizer; where it knew no limit, that of the model's positions is its own from now on."""
    limit = longest_text(config, tokenizer, None)
    if limit is not None and getattr(tokenizer, "model_max_length", 0) >= LARGE_INTEGER:
        tokenizer.model_max_length = limit
    return tokenizer


def check_vocabulary(ids: Iterable[int], tokenizer: Any, config: PreTrainedConfig) -> None:
    """Every token of a text has a row in the model's embeddings.

    Args:
        ids: token numbers that occur, or the largest of them.
        tokenizer: which gave them.
        config: of the model that is to read them.

    Raises:
        ValueError: one has none; the token is named.
    """
    rows = getattr(config.get_text_config(), "vocab_size", None)
    largest = max(ids, default=-1)
    if isinstance(rows, int) and largest >= rows:
        raise ValueError(
            f"the tokenizer gives the token {tokenizer.convert_ids_to_tokens(int(largest))!r} the number {largest}, "
            f"and the model has embeddings for 0 to {rows - 1} (`vocab_size={rows}`; the tokenizer has "
            f"{len(tokenizer)} tokens): use the tokenizer that the model was saved with, or call "
            "`model.resize_token_embeddings(len(tokenizer))` and save the model."
        )
