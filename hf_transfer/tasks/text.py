"""What the tasks on text share: the tokenizer, trained, named or stored with the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging

from hf_transfer.data.bpe import train_bpe
from hf_transfer.data.prepare import texts_of
from hf_transfer.data.prepared_streams import PreparedStream, texts_of_stream
from hf_transfer.data.text_length import TEXT_MAX_LENGTH
from hf_transfer.modeling.processors import stored_processor
from hf_transfer.models.revisions import at_revision
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.tasks.task import Task

logger = logging.get_logger(__name__)

TOKENIZER_ROWS = 100_000
"""How many rows of a stream a tokenizer is trained on."""
SPECIAL_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")


class TextTask(Task):
    """A task whose rows are texts."""

    reads: ClassVar[str] = "text"
    own_arguments = frozenset({"tokenizer", "text_columns", "max_length"})

    def new_processor(self, model: ModelArguments, data: DataArguments, rows: Dataset | PreparedStream) -> Any:
        if isinstance(model.tokenizer, Mapping):
            columns = data.text_columns or ()
            is_stream = isinstance(rows, PreparedStream)
            texts = texts_of_stream(rows, columns, TOKENIZER_ROWS) if is_stream else texts_of(rows, columns)
            return train_bpe(texts, **model.tokenizer)
        if model.tokenizer is None:
            return None
        try:
            folder, stored = at_revision(model.tokenizer)
            return stored_processor("text", folder, trust_remote_code=model.trust_remote_code, **stored)
        except ValueError as error:
            raise ValueError(f"cannot load the tokenizer `{model.tokenizer}`: {error}") from error

    def remember(self, model: Any, data: DataArguments, rows: Dataset) -> None:
        """After how many tokens texts are cut, where the user says so."""
        keep_or_clear(model.config, TEXT_MAX_LENGTH, data.max_length)

    def load_processor(self, model: ModelArguments, config: PreTrainedConfig) -> Any:
        """The stored tokenizer, as `with_padding`, or None."""
        if model.model is None:
            return None
        try:
            tokenizer = stored_processor("text", model.model, **model.stored)
        except ValueError as error:
            logger.info(f"{model.model} has no tokenizer: {error}")
            return None
        return with_padding(tokenizer, config)

    def sizes(
        self, architecture: Mapping[str, Any], data: DataArguments, rows: list[Dataset], processor: Any
    ) -> dict[str, Any]:
        """The vocabulary and the special tokens."""
        if not isinstance(processor, PreTrainedTokenizerBase):
            return {}
        return {"vocab_size": len(processor), **{name: getattr(processor, name) for name in SPECIAL_TOKENS}}


def keep_or_clear(config: PreTrainedConfig, name: str, value: Any) -> None:
    """Write a field of the reading; where the run says nothing, one of an earlier training is cleared.

    Args:
        config: of the model in training.
        name: of the field.
        value: None where the run says nothing.
    """
    if value is not None or hasattr(config, name):
        setattr(config, name, value)


def with_padding(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer, whose padding token `config` knows too."""
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id
    return tokenizer
