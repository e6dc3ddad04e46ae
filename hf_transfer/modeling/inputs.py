"""From rows of a `datasets.Dataset` to a model's input tensors and label tensors, in one pass.

A dataset may already hold what the model's forward takes (`pixel_values`, `input_ids`, ...), or raw columns (images,
text, words) that the model's own processor turns into inputs.

A run prepares its rows before training (`hf_transfer.data.prepare`): it reads them many times, by one processor, and
keeps them in the cache of `datasets`. A ranking reads them once for each model, by another processor every time: here
they become inputs batch by batch, and nothing is kept. Both read a picture, a sound, a length of text, and the token
of a word by the same functions of `hf_transfer.data`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Audio, Dataset, Image
from PIL import Image as PILImage
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.utils import logging

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.data.checks import LABEL_COLUMNS, check_labels, check_not_empty
from hf_transfer.data.holes import refuse_empty_cells, row_name
from hf_transfer.data.images import read_image, undecoded
from hf_transfer.data.labels import read_labels
from hf_transfer.data.questions import ANSWERS
from hf_transfer.data.sounds import read_sound, sound_batch, sound_columns
from hf_transfer.data.tagged_words import (
    LABEL_COLUMN,
    WORD_COLUMN,
    find_word_column,
    holds_tagged_words,
    read_tags,
    with_word_lists,
)
from hf_transfer.data.text_columns import check_pair
from hf_transfer.data.text_length import check_vocabulary, longest_text
from hf_transfer.data.text_padding import settle_padding_side
from hf_transfer.data.word_tokens import check_tokenizer, first_tokens, labels_at
from hf_transfer.modeling.scene_labels import SCENE_COLUMNS, scene_column, with_picture_labels

logger = logging.get_logger(__name__)

TOKEN_LABEL_COLUMNS = ("ner_tags", "pos_tags", "tags")
# Arguments of a forward that say how to read the input, not what the input is.
COMPANIONS = frozenset({"attention_mask", "token_type_ids", "position_ids", "labels", "head_mask", "return_dict"})

SERIES_INPUT = "past_values"
LENGTHS_AT_ONCE = 10_000

Batch = tuple[dict[str, Tensor], Tensor]


@dataclass(frozen=True)
class Columns:
    """What to read of a dataset: the label, the inputs, and what the inputs are.

    `kind` is "ready" (the inputs are the model's own), "image", "audio", "text", "words" (text split in words) or
    "series" ([T] or [T, C] numbers). `is_per_token` says that every token has a label.
    """

    label: str
    inputs: tuple[str, ...]
    kind: str
    is_per_token: bool = False


def choose_columns(
    dataset: Dataset,
    model: nn.Module,
    label_column: str | None = None,
    input_columns: str | Sequence[str] | None = None,
) -> Columns:
    """Find the label and input columns of a dataset for a model.

    Raises:
        ValueError: no rows, no label column, no column the model could read, or several it might mean.
    """
    check_not_empty(dataset, "given")
    row = plain_rows(dataset)[0]
    label = choose_label(row, label_column)
    candidates = {name: value for name, value in row.items() if name != label}
    if input_columns is not None:
        names = [input_columns] if isinstance(input_columns, str) else list(input_columns)
        missing = [name for name in names if name not in row]
        if missing:
            raise ValueError(f"`input_columns` names {missing}, but the dataset has {list(row)}.")
        candidates = {name: row[name] for name in names}
    accepted = forward_arguments(model)
    ready = [name for name in candidates if name in accepted and name != "labels"]
    if set(ready) - COMPANIONS:
        return Columns(label, tuple(ready), "ready", labels_every_token(row, label))
    sounds = [name for name in sound_columns(dataset) if name in candidates]
    if len(sounds) == 1:
        return Columns(label, tuple(sounds), "audio")
    columns = choose_raw(candidates, label, model)
    if dataset.format["type"] != "custom" and columns.kind in ("text", "words"):
        refuse_empty_cells(dataset, columns.inputs, "given")
        if input_columns is None and len(columns.inputs) == 2:
            check_pair(dataset, list(columns.inputs), label, "input_columns")
        logger.warning_once(f"reading the text of {' and '.join(f'`{name}`' for name in columns.inputs)}.")
    return columns


def plain_rows(dataset: Dataset) -> Dataset:
    """The rows as Python values, pictures undecoded; a transform on the fly makes the columns that count."""
    if dataset.format["type"] == "custom":
        return dataset
    # A tensor format would decode pictures to arrays.
    dataset = dataset.with_format(None)
    for name, feature in dataset.features.items():
        dataset = undecoded(dataset, name) if isinstance(feature, Image) else dataset
        dataset = dataset.cast_column(name, Audio(decode=False)) if isinstance(feature, Audio) else dataset
    return dataset


def numbered_labels(
    dataset: Dataset,
    label_column: str | None,
    problem_type: str | None = None,
    input_columns: str | Sequence[str] | None = None,
) -> Dataset:
    """The rows with their labels as numbers, as every command reads them; a class a token stays as it is.

    The column keeps its name.

    Raises:
        ValueError: there is no label column, or its labels cannot be read.
    """
    if dataset.format["type"] != "custom" and (scenes := scene_column(dataset, label_column)) is not None:
        return with_picture_labels(dataset, scenes)
    # A transform on the fly makes the columns that count.
    row = plain_rows(dataset)[0]
    column = choose_label(row, label_column)
    if dataset.format["type"] != "custom" and holds_tagged_words(dataset, column):
        return numbered_tags(dataset, column, input_columns)
    if dataset.format["type"] == "custom" or labels_every_part(row, column):
        return dataset
    others = {name: f"_{name}_" for name in LABEL_COLUMNS if name in dataset.column_names and name != column}
    read, kind = read_labels(dataset.rename_columns(others), "given", column, problem_type)
    logger.warning_once(f"ranking on {len(dataset)} rows, column `{column}`: {kind.in_words()}.")
    name = column if column in LABEL_COLUMNS else "labels"
    if kind.problem_type != SINGLE_LABEL:
        check_labels(read, name, kind.problem_type, kind.outputs, "given")
    return read.rename_columns({name: column, **{new: old for old, new in others.items()}})


def numbered_tags(dataset: Dataset, column: str, input_columns: str | Sequence[str] | None = None) -> Dataset:
    """Rows of words and the class number of each; both columns keep their names, and others of words go."""
    named = [input_columns] if isinstance(input_columns, str) else list(input_columns or ())
    words = find_word_column(dataset, named, column)
    tagged, kind = read_tags(with_word_lists(dataset, "given", [words], column), "given")
    count = sum(len(tags) for tags in tagged[LABEL_COLUMN])
    logger.warning_once(f"ranking on {count} words of `{words}`, column `{column}`: {kind.in_words()}.")
    tagged = tagged.select_columns([WORD_COLUMN, LABEL_COLUMN])
    if tagged.with_format(None)[LABEL_COLUMN][:] == dataset.with_format(None)[column][:]:
        return dataset  # as it is
    return tagged.rename_columns({WORD_COLUMN: words, LABEL_COLUMN: column})


def labels_every_part(row: dict[str, Any], label: str) -> bool:
    """Whether the label column holds one class for each token or word of a row."""
    parts = [len(one) for one in row.values() if isinstance(one, list) and one and isinstance(one[0], str)]
    is_list = isinstance(row[label], list) and not any(isinstance(one, str) for one in row[label])
    return is_list and (labels_every_token(row, label) or len(row[label]) in parts)


def labels_every_token(row: dict[str, Any], label: str) -> bool:
    """Whether the label column holds one class for each of `input_ids`."""
    labels = np.asarray(row[label])
    return labels.ndim == 1 and labels.dtype.kind == "i" and len(labels) == len(row.get("input_ids", ()))


def choose_label(row: dict[str, Any], label_column: str | None) -> str:
    names = LABEL_COLUMNS + TOKEN_LABEL_COLUMNS + SCENE_COLUMNS if label_column is None else (label_column,)
    label = next((name for name in names if name in row), None)
    answers = row.get(ANSWERS)
    parts = answers if isinstance(answers, list) else [answers]
    if any(isinstance(one, dict) for one in parts) and label in (None, ANSWERS):
        raise ValueError(
            f"column `{ANSWERS}` holds parts of contexts, which are no classes, and models are not ranked on them: "
            "name a column of classes or numbers by `label_column`, or compare models by `hf-transfer adapt`."
        )
    if label is not None:
        return label
    raise ValueError(f"No label column: expected one of {list(names)}, found {list(row)}. Name it by `label_column`.")


def forward_arguments(model: nn.Module) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


def choose_raw(candidates: dict[str, Any], label: str, model: nn.Module) -> Columns:
    """Sort the raw columns by what they hold; images first, then split words, text and series."""
    kinds = {name: kind_of(value, model) for name, value in candidates.items() if name not in LABEL_COLUMNS}
    for kind, most in (("image", 1), ("words", 1), ("text", 2), ("series", 1)):
        names = tuple(name for name in kinds if kinds[name] == kind)
        if len(names) > most:
            raise ValueError(f"Columns {list(names)} all hold {kind}: say which to read by `input_columns`.")
        if names:
            return Columns(label, names, kind, is_per_token=kind == "words")
    raise ValueError(
        f"No column that {type(model).__name__} could read: found {list(candidates)}, expected its own inputs "
        f"(such as `{getattr(model, 'main_input_name', 'input_ids')}`), images or text."
    )


def kind_of(value: Any, model: nn.Module) -> str | None:
    """What a raw value is: "image", "text", "words", "series" (only for a model of series) or None."""
    if isinstance(value, PILImage.Image) or (isinstance(value, dict) and set(value) == {"bytes", "path"}):
        return "image"
    if isinstance(value, str):
        return "text"
    if isinstance(value, (list, tuple)) and value and all(isinstance(word, str) for word in value):
        return "words"
    if getattr(model, "main_input_name", None) == SERIES_INPUT:
        numbers = np.asarray(value)
        if numbers.dtype.kind in "if" and numbers.ndim in (1, 2):
            return "series"
    return None


def make_batches(
    dataset: Dataset,
    columns: Columns,
    processor: Any,
    model: nn.Module,
    *,
    batch_size: int,
    max_length: int | None = None,
    order: Tensor | None = None,
    num_workers: int = 0,
) -> Iterable[Batch]:
    """Batches of (inputs, labels) of the rows in `order` [n], by default the dataset's own."""
    if columns.kind in ("text", "words"):
        settle_padding_side(processor, model.config, reads_every_token=columns.kind == "words")
        max_length = longest_text(model.config, processor, max_length)
    make_inputs = None if columns.kind == "words" else input_maker(columns, processor, model, max_length)

    def collate(numbered: list[tuple[int, dict[str, Any]]]) -> Batch:
        rows = [row for _, row in numbered]
        labels = [row[columns.label] for row in rows]
        if columns.kind == "words":
            return align_words(rows, labels, columns, processor, model, max_length)
        if columns.kind == "image":
            name = columns.inputs[0]
            rows = [{name: read_image(row[name], channels, row_name(dataset, index, name))} for index, row in numbered]
        if columns.kind == "audio":
            name, rate = columns.inputs[0], processor.sampling_rate
            rows = [{name: read_sound(row[name], rate, row_name(dataset, index, name))} for index, row in numbered]
        return make_inputs(rows), label_tensor(labels)

    channels = getattr(model.config, "num_channels", 3)
    if dataset.format["type"] != "custom":
        names = [*columns.inputs, columns.label]
        dataset = dataset.with_format("torch", columns=names) if columns.kind == "ready" else plain_rows(dataset)
        dataset = dataset if columns.kind == "ready" else dataset.with_format(None, columns=names)
    indices = range(len(dataset)) if order is None else order.tolist()
    loader = {"sampler": indices, "collate_fn": collate, "num_workers": num_workers}
    return DataLoader(NumberedRows(dataset), batch_size, **loader)


class NumberedRows:
    """Rows of a data set with their places, so that what is wrong with one can be named."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: list[int]) -> list[tuple[int, dict[str, Any]]]:
        return list(zip(indices, self.dataset.__getitems__(indices)))


def longest_first(dataset: Dataset, columns: Columns) -> Tensor:
    """Places [n] of the rows, long ones first: little padding in a batch, and memory that runs out does so at once.

    Rows whose length the table does not tell (pictures, columns made on the fly) keep their order.
    """
    name = columns.inputs[0] if columns.kind != "ready" else "input_ids"
    if dataset.format["type"] == "custom" or name not in dataset.column_names or len(dataset) == 0:
        return torch.arange(len(dataset))
    tables = dataset.select_columns([name]).with_format("arrow").iter(batch_size=LENGTHS_AT_ONCE)
    lengths = [lengths_of(table[name]) for table in tables]
    if any(length is None for length in lengths):
        return torch.arange(len(dataset))
    return torch.from_numpy(np.concatenate(lengths)).argsort(descending=True, stable=True)


def lengths_of(column: pa.ChunkedArray) -> np.ndarray | None:
    """Bytes of every text or items of every list in a column of a table; None for what is neither."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        lengths = pc.binary_length(column)
    elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = pc.list_value_length(column)
    else:
        return None
    return lengths.fill_null(0).to_numpy().astype(np.int64)


def input_maker(
    columns: Columns, processor: Any, model: nn.Module, max_length: int | None
) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
    """The function that turns rows into model inputs."""
    accepted = forward_arguments(model)
    if columns.kind == "ready":
        padding = getattr(model.config, "pad_token_id", None) or 0
        return lambda rows: stack_inputs(rows, columns.inputs, padding, accepted)
    if columns.kind == "series":
        return lambda rows: stack_series([row[columns.inputs[0]] for row in rows], accepted)
    if columns.kind == "audio":
        return lambda rows: sound_batch(processor, [row[columns.inputs[0]] for row in rows])
    if columns.kind == "image":
        return lambda rows: dict(processor([row[columns.inputs[0]] for row in rows], return_tensors="pt"))

    def tokenize(rows):
        texts = [[row[name] for row in rows] for name in columns.inputs]
        encoded = processor(*texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        check_vocabulary([int(encoded["input_ids"].max())], processor, model.config)
        return {name: value for name, value in encoded.items() if name in accepted}

    return tokenize


def stack_inputs(
    rows: list[dict[str, Any]], names: Sequence[str], padding: int, accepted: set[str]
) -> dict[str, Tensor]:
    """Columns that are model inputs already, padded to one length; where that was needed, the mask says so."""
    inputs = {name: stack([row[name] for row in rows], padding if name == "input_ids" else 0) for name in names}
    main = next(name for name in names if name not in COMPANIONS)
    lengths = [len(row[main]) for row in rows]
    if len(set(lengths)) > 1 and "attention_mask" in accepted and "attention_mask" not in inputs:
        inputs["attention_mask"] = length_mask(lengths)
    return inputs


def stack_series(series: list[Any], accepted: set[str]) -> dict[str, Tensor]:
    """Series [T] or [T, C] as one tensor [B, T, C], with a mask where their lengths differ."""
    values = [torch.as_tensor(np.asarray(one)).float() for one in series]
    values = [one.unsqueeze(-1) if one.ndim == 1 else one for one in values]
    lengths = [len(one) for one in values]
    inputs = {SERIES_INPUT: stack(values)}
    if len(set(lengths)) > 1 and "attention_mask" in accepted:
        inputs["attention_mask"] = length_mask(lengths)
    return inputs


def length_mask(lengths: list[int]) -> Tensor:
    """Mask [B, T], 1 on the first `lengths` places."""
    return (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()


def stack(values: list[Any], padding: int | float = 0) -> Tensor:
    """One tensor of many; rows of different length are continued with `padding` along their first axis."""
    tensors = [torch.as_tensor(np.asarray(value)) if not isinstance(value, Tensor) else value for value in values]
    if len({tensor.shape for tensor in tensors}) == 1:
        return torch.stack(tensors)
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=padding)


def label_tensor(labels: list[Any]) -> Tensor:
    """Labels [B], or [B, C]; labels of tokens are continued with the ignored label."""
    if isinstance(labels[0], str):
        raise ValueError("The labels are strings: use dataset.class_encode_column(...) to number them.")
    return stack(labels, IGNORED_LABEL)


def align_words(
    rows: list[dict[str, Any]],
    labels: list[Any],
    columns: Columns,
    tokenizer: Any,
    model: nn.Module,
    max_length: int | None,
) -> Batch:
    """Inputs of split words and labels [B, T]: the first token of a word carries its label, others the ignored one."""
    check_tokenizer(tokenizer)
    words = [row[columns.inputs[0]] for row in rows]
    encoded = tokenizer(
        words, is_split_into_words=True, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
    )
    check_vocabulary([int(encoded["input_ids"].max())], tokenizer, model.config)
    length = encoded["input_ids"].shape[1]
    firsts = [first_tokens(encoded.word_ids(row), len(one)) for row, one in enumerate(words)]
    aligned = torch.tensor([labels_at(*one, length) for one in zip(firsts, labels, strict=True)])
    accepted = forward_arguments(model)
    return {name: value for name, value in encoded.items() if name in accepted}, aligned
