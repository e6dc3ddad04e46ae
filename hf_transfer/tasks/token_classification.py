"""Token classification: a class for every word of a sentence, such as named entities and parts of speech."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset, List, Value
from transformers import (
    DataCollatorForTokenClassification,
    EvalPrediction,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.core.task_metrics import task_metrics
from hf_transfer.data.bpe import train_bpe
from hf_transfer.data.label_columns import LabelColumn
from hf_transfer.data.labels import LabelKind
from hf_transfer.data.tagged_words import LABEL_COLUMN, WORD_COLUMN, read_tags, with_word_lists
from hf_transfer.data.text_length import check_vocabulary, reading_length
from hf_transfer.data.text_padding import settle_padding_side
from hf_transfer.data.word_tokens import check_tokenizer, first_tokens, labels_at
from hf_transfer.evaluation.answers import answers_of, labelled_units
from hf_transfer.evaluation.entities import entity_metrics, name_entities
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.tasks.task import Metrics
from hf_transfer.tasks.text import TextTask

logger = logging.get_logger(__name__)

FIRST_TOKENS = "first_tokens"
"""Column of prepared rows: the index of each word's first token, -1 for a word that has none."""
ENTITY_METRICS = ("entity_f1", "entity_precision", "entity_recall")


class TokenClassification(TextTask):
    """The class of a word is the label of its first token; its other tokens have none (Devlin et al. 2019)."""

    name = "token-classification"
    reads = "words"
    auto_class = "AutoModelForTokenClassification"
    input_column = WORD_COLUMN
    saved_as = ("ForTokenClassification",)
    streams = False

    def new_processor(self, model: ModelArguments, data: DataArguments, rows: Dataset) -> Any:
        if isinstance(model.tokenizer, Mapping):
            return train_bpe((" ".join(words) for words in rows[WORD_COLUMN]), **model.tokenizer)
        return super().new_processor(model, data, rows)

    def arranged(self, rows: Dataset, arguments: DataArguments, role: str) -> Dataset:
        if "input_ids" in rows.column_names:
            return rows
        named = arguments.label_column if arguments.label_column in rows.column_names else None
        if named is None and arguments.label_column is not None and role.startswith("training"):
            named = arguments.label_column  # is not there, which is said
        return with_word_lists(rows, role, arguments.text_columns or (), named)

    def label_column(self, arguments: DataArguments) -> str | None:
        return None

    def read_labels(self, rows: Dataset, role: str, arguments: DataArguments) -> tuple[Dataset, LabelKind]:
        if arguments.problem_type not in (None, SINGLE_LABEL):
            raise ValueError(f"{self.name} has one class a word, not {arguments.problem_type}: leave it out.")
        for name in ("labels_per_class", "dat"):
            if getattr(arguments, name) is not None:
                raise ValueError(
                    f"`{name}` chooses rows by their class, and {self.name} has a class a word: leave it out; "
                    "`max_samples` trains on fewer rows."
                )
        return read_tags(rows, role)

    def model_labels(self, config: PreTrainedConfig, rows: Dataset) -> LabelKind:
        names = tuple(str(config.id2label[index]) for index in range(config.num_labels))
        made_up = names == tuple(f"LABEL_{index}" for index in range(len(names)))
        return LabelKind(SINGLE_LABEL, len(names), None if made_up else names)

    def read_labels_as(
        self, rows: Dataset, kind: LabelKind, role: str, column: LabelColumn = None, source: str = "the model"
    ) -> Dataset:
        return read_tags(rows, role, kind, source)[0]

    def prepare(self, rows: Dataset, config: PreTrainedConfig, processor: Any, **reading: Any) -> Dataset:
        """Tokens of every row with the label of a word at its first one, and where these first tokens are.

        Raises:
            ValueError: no tokenizer, or one that does not say which token is of which word.
        """
        if "input_ids" in rows.column_names:
            return rows
        check_tokenizer(processor)
        settle_padding_side(processor, config, reads_every_token=True)
        longest = reading_length(config, processor, reading.get("max_length"))
        rest = [name for name in (WORD_COLUMN, LABEL_COLUMN) if name in rows.column_names]

        def tokenize(batch: dict[str, list]) -> dict[str, list]:
            encoded = processor(batch[WORD_COLUMN], is_split_into_words=True, truncation=True, max_length=longest)
            firsts = [first_tokens(encoded.word_ids(row), len(w)) for row, w in enumerate(batch[WORD_COLUMN])]
            lengths = [len(ids) for ids in encoded["input_ids"]]
            tags = batch.get(LABEL_COLUMN) or [[IGNORED_LABEL] * len(first) for first in firsts]
            labels = [labels_at(*one) for one in zip(firsts, tags, lengths, strict=True)]
            return {**encoded, LABEL_COLUMN: labels, FIRST_TOKENS: firsts}

        ready = rows.map(tokenize, batched=True, remove_columns=rest, desc="Reading words")
        ready = ready.cast_column(LABEL_COLUMN, List(Value("int64")))
        check_vocabulary((max(ids, default=-1) for ids in ready["input_ids"]), processor, config)
        tell_lost_words(ready, longest)
        return ready

    def collator(self, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable | None:
        if not isinstance(processor, PreTrainedTokenizerBase):
            raise ValueError(f"{self.name} pads rows by the model's tokenizer, and its folder has none.")
        return TokenCollator(processor)

    def label_metrics(self, config: PreTrainedConfig) -> Callable[[EvalPrediction], Metrics]:
        names = [str(config.id2label[index]) for index in range(config.num_labels)]

        def compute(prediction: EvalPrediction) -> Metrics:
            found = task_metrics(*labelled_units(prediction.predictions, prediction.label_ids), SINGLE_LABEL)
            if not name_entities(names):
                return found
            pairs = list(tags_of_rows(prediction.predictions, prediction.label_ids, names))
            figures = entity_metrics([answers for answers, _ in pairs], [labels for _, labels in pairs])
            return {**{name: figures[name] for name in ENTITY_METRICS}, **found}

        return compute

    def metric_names(self, config: PreTrainedConfig) -> tuple[str, ...]:
        names = [str(config.id2label[index]) for index in range(config.num_labels)]
        return (*(ENTITY_METRICS if name_entities(names) else ()), "accuracy", "macro_f1")

    def answers(self, rows: Dataset, ready: Dataset, outputs: Any, config: PreTrainedConfig) -> dict[str, list]:
        """A line for every word; its prediction is empty where the model read no token of it."""
        outputs = np.asarray(outputs)
        table: dict[str, list] = {name: [] for name in ("row", "word", "prediction", "probability")}
        for row, (words, firsts) in enumerate(zip(rows[WORD_COLUMN], ready[FIRST_TOKENS], strict=True)):
            firsts = np.asarray(firsts, dtype=int)
            told = answers_of(torch.from_numpy(outputs[row][firsts]).float(), config) if len(firsts) else {}
            table["row"] += [row] * len(words)
            table["word"] += words
            for name in ("prediction", "probability"):
                values = told.get(name, [])
                table[name] += [value if first >= 0 else "" for value, first in zip(values, firsts, strict=True)]
        return table


class TokenCollator(DataCollatorForTokenClassification):
    """transformers' collator, which pads labels too, on the columns that it knows."""

    def torch_call(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        return super().torch_call([{k: v for k, v in row.items() if k != FIRST_TOKENS} for row in features])


def tell_lost_words(ready: Dataset, longest: int | None) -> None:
    """Log how many words the model does not read, because a row is too long or they have no token."""
    firsts = ready[FIRST_TOKENS]
    rows = [row for row, indices in enumerate(firsts) if -1 in indices]
    if rows:
        count = sum(indices.count(-1) for indices in firsts)
        logger.warning(
            f"{count} words in {len(rows)} rows, the first in row {rows[0]}, are not read and not measured: they come "
            f"after {longest} tokens, or the tokenizer drops their letters."
        )


def tags_of_rows(outputs: Any, labels: Any, names: list[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Predicted and true tags of the words of every row that have a label."""
    for row, label in zip(np.asarray(outputs).argmax(axis=-1), np.asarray(labels), strict=True):
        known = label != IGNORED_LABEL
        yield [names[index] for index in row[known]], [names[index] for index in label[known]]
