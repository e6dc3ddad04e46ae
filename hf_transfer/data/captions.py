"""The texts of image-text pairs: which column holds them, and the tokens that a text tower reads.

A SigLIP reads the state at the last place of a text that is padded to its full length; a CLIP reads the state at the
token that ends a text. Others pool what the attention mask says is real, and are padded to the longest of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.class_names import WORDS
from hf_transfer.data.holes import column_of, empty_cells, refuse_rows
from hf_transfer.data.text_length import longest_text

READ_AT_THE_LAST_PLACE = ("siglip",)
READ_AT_THE_END_TOKEN = ("clip_text_model", "clipseg_text_model", "metaclip_2_text_model")
WRONG_END = 2
"""What old CLIPs call their end token; transformers then takes the largest number of a text for it."""


def caption_column(dataset: Dataset, text_columns: Sequence[str] = ()) -> str:
    """The column with the text of every image.

    Args:
        dataset: rows.
        text_columns: named by the user, one or none.

    Raises:
        ValueError: no such column, or several to choose from; or a row without text, which is named.
    """
    texts = [name for name, one in dataset.features.items() if getattr(one, "dtype", None) in WORDS]
    found = list(text_columns) or [name for name in texts if name not in LABEL_COLUMNS]
    if len(found) != 1 or found[0] not in texts:
        raise ValueError(
            f"an image needs one column with its text, got {found}; the columns that hold text are {texts}: name one "
            "of them by `text_columns`, and of several texts of an image give each a row of its own."
        )
    values = column_of(dataset, found[0])
    is_blank = pc.equal(pc.utf8_trim_whitespace(values), "").fill_null(False).to_numpy(zero_copy_only=False)
    indices = np.union1d(empty_cells(values), np.flatnonzero(is_blank)).astype(int)
    if len(indices):
        refuse_rows(dataset, found[0], indices, "given", "has no caption")
    return found[0]


def caption_tokens(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, max_length: int | None = None
) -> dict[str, list[list[int]]]:
    """The inputs of the text tower for every text, as the tokenizer names them.

    Args:
        texts: to read.
        tokenizer: of the text tower.
        config: of the model with both towers.
        max_length: cut texts after so many tokens, or fewer where the model or its tokenizer says so.

    Raises:
        ValueError: the tokenizer does not end texts with the token at which the tower reads them.
    """
    tower, longest = config.get_text_config(), longest_text(config, tokenizer, max_length)
    is_filled = tower.model_type.startswith(READ_AT_THE_LAST_PLACE) and longest is not None
    padding = {"padding": "max_length"} if is_filled else {}
    tokens = dict(tokenizer(list(texts), truncation=True, max_length=longest, **padding))
    end = tower.eos_token_id
    if tower.model_type in READ_AT_THE_END_TOKEN and end != WRONG_END:
        without = next((text for text, ids in zip(texts, tokens["input_ids"]) if end not in ids), None)
        if without is not None:
            raise ValueError(
                f"the text tower, a {tower.model_type}, reads a text at its end token {end}, and the tokenizer gives "
                f"{without!r} none: use the tokenizer that the model was saved with, or one that adds it."
            )
    return tokens


def ending_texts(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer, which from now on puts its end token behind every text."""
    end = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    return tokenizer
