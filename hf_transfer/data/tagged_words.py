"""Rows of words with a tag for each word: where they stand in a data set, and the tags as class numbers.

A row is a list of words and a list of as many tags; or, as in csv files, one cell for each of them: a list in the
notation of JSON or Python, or words between spaces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, List, Value
from transformers.utils import logging

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.class_names import WORDS
from hf_transfer.data.holes import column_of, refuse_empty_cells, row_name
from hf_transfer.data.label_kinds import LabelKind
from hf_transfer.data.label_matching import by_value
from hf_transfer.data.literal_cells import read_literal

logger = logging.get_logger(__name__)

TAGS_BY_NAME = ("ner_tags", "tags", "upos", "pos_tags", "chunk_tags")
TAG_COLUMNS = (*LABEL_COLUMNS, *TAGS_BY_NAME)
"""The usual names of a column of tags, the first one there counts."""
WORD_COLUMNS = ("words", "tokens", "text")
"""The usual names of a column of words; they matter where several columns could be it."""
WORD_COLUMN, LABEL_COLUMN = "words", "labels"
PART = re.compile(r"[^ \t\r\n]+")
"""What stands between spaces; a space that does not break is a letter of its word."""
LOOKED_AT = 100
"""Rows by which columns of text are told to hold words and tags."""


def is_list_of_words(feature: Any) -> bool:
    """Whether a column holds lists of strings."""
    return getattr(getattr(feature, "feature", None), "dtype", None) in WORDS


def holds_tagged_words(dataset: Dataset, tag_column: str | None = None) -> bool:
    """Whether a column holds words and another as many tags, as lists or, in csv files, as text.

    Args:
        dataset: rows.
        tag_column: the column of tags, where it has none of the usual names.
    """
    tags = tag_column or find_tag_column(dataset)
    words = [name for name, one in dataset.features.items() if is_list_of_words(one) and name not in TAG_COLUMNS]
    words = [name for name in words if name != tags]
    if len(dataset) == 0:
        return False
    if words and not any(getattr(one, "dtype", None) in WORDS for one in dataset.features.values()):
        return tags is None or hasattr(dataset.features[tags], "feature")
    return tags is not None and has_a_tag_for_every_word(dataset, tags)


def has_a_tag_for_every_word(dataset: Dataset, tags: str) -> bool:
    """Whether the first rows have as many tags as words in some other column, and some row has more than one.

    A column whose name says that it holds tags, or lists of words beside it, may do so in half of the rows only: the
    others are mistakes, which are named when they are read.
    """
    first = dataset.select(range(min(LOOKED_AT, len(dataset))))
    counts = counts_of_parts(first, tags)
    if counts is None or max(counts) < 2:
        return False
    for name, one in dataset.features.items():
        is_text = getattr(one, "dtype", None) in WORDS
        if name == tags or name in TAG_COLUMNS or not (is_text or is_list_of_words(one)):
            continue
        others = counts_of_parts(first, name)
        if others is not None:
            equal = sum(mine == theirs for mine, theirs in zip(counts, others, strict=True))
            is_sure = is_list_of_words(one) or tags in TAGS_BY_NAME
            if equal and equal >= len(counts) * (0.5 if is_sure else 1.0):
                return True
    return False


def counts_of_parts(dataset: Dataset, column: str) -> list[int] | None:
    """How many items every cell of a column has, an empty one 0; None for a column of neither lists nor text."""
    feature = dataset.features[column]
    is_text = getattr(feature, "dtype", None) in WORDS
    if not is_text and not hasattr(getattr(feature, "feature", None), "dtype"):
        return None
    cells = column_of(dataset, column).to_pylist()
    try:
        return [len(split_cell(cell) if is_text else cell) if cell is not None else 0 for cell in cells]
    except ValueError:  # a list without commas, which the reader of the column names
        return None


def find_word_column(dataset: Dataset, named: Sequence[str] = (), tag_column: str | None = None) -> str:
    """The column of words.

    Args:
        dataset: rows.
        named: by the user, if at all.
        tag_column: which is none of words.

    Raises:
        ValueError: none, or several and none of a usual name.
    """
    if named:
        if len(named) != 1 or named[0] not in dataset.column_names:
            raise ValueError(
                f"`text_columns` should name the one column of words, got {list(named)}; the dataset has "
                f"{dataset.column_names}."
            )
        return named[0]
    free = {name: one for name, one in dataset.features.items() if name != tag_column and name not in TAG_COLUMNS}
    found = [name for name, one in free.items() if is_list_of_words(one)]
    found = found or [name for name, one in free.items() if getattr(one, "dtype", None) in WORDS]
    usual = [name for name in WORD_COLUMNS if name in found]
    if len(found) != 1 and not usual:
        raise ValueError(
            f"found {len(found)} columns of words in {dataset.column_names}: name one by `text_columns`; it should "
            "hold lists of words, or words between spaces."
        )
    return found[0] if len(found) == 1 else usual[0]


def find_tag_column(dataset: Dataset, named: str | None = None) -> str | None:
    """The column of tags, None where there is none. Raises ValueError where the one that was named is not there."""
    if named is not None:
        if named not in dataset.column_names:
            raise ValueError(f"there is no label column `{named}`; the dataset has {dataset.column_names}.")
        return named
    return next((name for name in TAG_COLUMNS if name in dataset.column_names), None)


def with_word_lists(dataset: Dataset, role: str, text_columns: Sequence[str] = (), tag_column: str | None = None):
    """The rows with the columns `words` and, where they have tags, `labels`: a list of each in every row.

    Args:
        dataset: rows.
        role: what they are for and where they are from, for messages.
        text_columns: which column holds the words, where that is not clear.
        tag_column: likewise the tags.

    Raises:
        ValueError: no such column, an empty cell or word, or a row with more words than tags or fewer.
    """
    tags = find_tag_column(dataset, tag_column)
    words = find_word_column(dataset, text_columns, tags)
    refuse_empty_cells(dataset, [words] if tags is None else [words, tags], role)
    cells = {WORD_COLUMN: _lists(dataset, words, role)}
    _refuse_empty(dataset, cells[WORD_COLUMN], words, role)
    features: dict[str, Any] = {WORD_COLUMN: List(Value("string"))}
    if tags is not None:
        cells[LABEL_COLUMN] = _lists(dataset, tags, role)
        _refuse_empty(dataset, cells[LABEL_COLUMN], tags, role)
        _check_counts(dataset, cells, words, tags, role)
        is_list = hasattr(dataset.features[tags], "feature")
        features[LABEL_COLUMN] = List(dataset.features[tags].feature if is_list else Value("string"))
    used = {words, tags, WORD_COLUMN, *LABEL_COLUMNS} & set(dataset.column_names)
    kept = dataset.with_format(None)
    for name, values in cells.items():
        kept = kept.add_column(f"_{name}_", values, feature=features[name])
    return kept.remove_columns(sorted(used)).rename_columns({f"_{name}_": name for name in cells})


def _lists(dataset: Dataset, column: str, role: str) -> list[list]:
    """Every cell as a list; what is none is split."""
    values = column_of(dataset, column).to_pylist()
    if hasattr(dataset.features[column], "feature"):
        return values
    if getattr(dataset.features[column], "dtype", None) not in WORDS:
        raise ValueError(
            f"column `{column}` of the {role} dataset holds one {dataset.features[column].dtype} a row: a tag for "
            "every word is a list, or tags between spaces."
        )
    lists = []
    for index, cell in enumerate(values):
        try:
            lists.append(split_cell(cell))
        except ValueError as error:
            raise ValueError(f"{row_name(dataset, index, column)} of the {role} dataset {error}") from None
    return lists


def split_cell(cell: str) -> list[str]:
    """The items of a list as JSON or Python write it; of any other text its parts between spaces.

    Raises:
        ValueError: a list whose items no comma separates, as numpy prints them, or with an empty item.
    """
    cell = cell.strip()
    if not (cell.startswith("[") and cell.endswith("]")):
        return PART.findall(cell)
    items = read_literal(cell)
    if not isinstance(items, list):
        return PART.findall(cell)
    if any(item is None or item != item for item in items):  # nothing but NaN differs from itself
        raise ValueError("holds a list with an empty item: leave the word and its label out.")
    return [item if isinstance(item, str) else str(item) for item in items]


def _refuse_empty(dataset: Dataset, rows: list[list], column: str, role: str) -> None:
    for index, row in enumerate(rows):
        if any(isinstance(item, str) and not item.strip() for item in row):
            raise ValueError(
                f"{row_name(dataset, index, column)} of the {role} dataset holds an empty word: leave it and its "
                "label out."
            )


def _check_counts(dataset: Dataset, cells: dict[str, list], words: str, tags: str, role: str) -> None:
    for index, (row, labels) in enumerate(zip(cells[WORD_COLUMN], cells[LABEL_COLUMN], strict=True)):
        if len(row) != len(labels):
            raise ValueError(
                f"{row_name(dataset, index)} of the {role} dataset has {len(row)} words in column `{words}` and "
                f"{len(labels)} labels in column `{tags}`: give every word one label."
            )


def read_tags(
    dataset: Dataset, role: str, kind: LabelKind | None = None, source: str = "the model"
) -> tuple[Dataset, LabelKind]:
    """The rows of `with_word_lists` with their tags as class numbers, and what the classes are.

    Args:
        dataset: with the column `labels`.
        role: as there.
        kind: the classes that the tags are to be numbered by: of other rows, or of a model.
        source: whose classes these are, for the message.

    Raises:
        ValueError: a tag that is not among the classes of `kind`, numbers below 0, or no tag at all.
    """
    rows = column_of(dataset, LABEL_COLUMN).to_pylist()
    inner = dataset.features[LABEL_COLUMN].feature
    if getattr(inner, "dtype", None) in WORDS:
        rows = [[tag_of(word) for word in row] for row in rows]
    own = list(inner.names) if isinstance(inner, ClassLabel) else _names_of(rows, role)
    numbers = {str(name): index for index, name in enumerate(own)}
    names = own if kind is None else list(kind.class_names or [str(index) for index in range(kind.outputs)])
    is_word = isinstance(inner, ClassLabel) or inner.dtype in WORDS
    if not is_word and kind is not None:
        # Numbers without names are numbers of the classes, unless these are numbers themselves.
        numbers = by_value(kind.class_names) or {str(index): index for index in range(kind.outputs)}
    elif kind is not None:
        numbers = {name: names.index(name) for name in own if name in names}
    indices = np.array([numbers.get(name, -1) for name in own]) if isinstance(inner, ClassLabel) else None
    tagged = []
    for index, row in enumerate(rows):
        found = [_number(tag, numbers, indices) for tag in row]
        if -1 in found:
            tag = row[found.index(-1)]
            tag = own[tag] if isinstance(inner, ClassLabel) and 0 <= tag < len(own) else tag
            raise ValueError(
                f"{row_name(dataset, index)} of the {role} dataset has the label {tag!r}, which is none of the "
                f"{len(names)} of {source if kind is not None else 'its column'} ({', '.join(names[:10])})."
            )
        tagged.append(found)
    kept = dataset.with_format(None).remove_columns(LABEL_COLUMN)
    feature = List(ClassLabel(names=names))
    return kept.add_column(LABEL_COLUMN, tagged, feature=feature), LabelKind(SINGLE_LABEL, len(names), tuple(names))


def tag_of(word: str) -> str | int:
    """A tag without the space around it; `IGNORED_LABEL`, as text says it too, is none."""
    word = word.strip()
    return IGNORED_LABEL if word == str(IGNORED_LABEL) else word


def _names_of(rows: list[list], role: str) -> list[str]:
    """Names of the classes of tags that are words, in alphabetical order, or numbers from 0 on."""
    found = {tag for row in rows for tag in row if tag != IGNORED_LABEL}
    if not found:
        raise ValueError(f"the {role} dataset has no label in any row.")
    if all(isinstance(tag, str) for tag in found):
        return sorted(found)
    if any(tag != int(tag) or tag < 0 for tag in found):
        raise ValueError(
            f"the {role} dataset has labels such as {min(found)}: the label of a word is a word, or a class number "
            f"from 0 on ({IGNORED_LABEL} for none)."
        )
    return [str(index) for index in range(int(max(found)) + 1)]


def _number(tag: Any, numbers: dict[str, int], indices: np.ndarray | None) -> int:
    """The class of a tag; -1 for one that is unknown."""
    if tag == IGNORED_LABEL:
        return IGNORED_LABEL
    if indices is not None:
        return int(indices[tag]) if 0 <= tag < len(indices) else -1
    return numbers.get(tag if isinstance(tag, str) else str(int(tag)), -1)
