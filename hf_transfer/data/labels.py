"""The one reader of labels: what a label column holds, as numbers that a model can be trained on.

    a class each    words; True and False; whole numbers, also with a point (1.0); a ClassLabel
    a number each   numbers of which one is not whole
    several each    lists of 0 and 1 (or False and True), one for each label; lists of names or of class numbers; in
                    csv files as JSON or Python write them, ["sea", "old"]; several columns of 0 and 1, one each
    numbers each    lists of other numbers, as many in every row; they are class numbers where `problem_type`, or the
                    labels of the data or model that these are read as, say that several may hold at once; several
                    columns of numbers

Whole numbers name their classes: the stars 1 to 5 are the five classes "1" to "5". Numbers from 0 on are numbered as
they stand. An empty cell never changes what a column is: it is refused, with its row.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, List, Value
from transformers import PreTrainedConfig
from transformers.utils import logging

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.core.task_loss import (
    MULTI_LABEL,
    PROBLEM_TYPES,
    REGRESSION,
    SINGLE_LABEL,
    declared_problem_type,
)
from hf_transfer.data.checks import LABEL_COLUMNS, label_column
from hf_transfer.data.columns import format_of
from hf_transfer.data.holes import column_of, empty_cells, refuse_rows
from hf_transfer.data.label_columns import LabelColumn, label_names, with_joined_columns
from hf_transfer.data.label_kinds import LabelKind, Read
from hf_transfer.data.label_matching import as_indices, as_several
from hf_transfer.data.literal_cells import have_decimal_commas, read_lists

logger = logging.get_logger(__name__)

NOT_A_NUMBER = frozenset({"", "na", "n/a", "nan", "none", "null", "?", "-"})
"""Words that stand for a missing number."""
FEW_CLASSES = 50
JOINING = (",", ";", "|")
"""What may stand between several labels in one text."""


def read_labels(
    dataset: Dataset, role: str, column: LabelColumn = None, problem_type: str | None = None
) -> tuple[Dataset, LabelKind]:
    """The rows with their labels as numbers, in one label column, and what they are.

    Classes become a ClassLabel unless they are whole numbers from 0 on; several labels a row become lists of 0 and 1.

    Args:
        dataset: rows with a label column.
        role: what the data set is for, for messages.
        column: which column, where it is none of `LABEL_COLUMNS`; it is renamed `labels`. Several are joined.
        problem_type: what the labels are, where their form leaves a doubt.

    Raises:
        ValueError: no such column, an empty cell, labels of no known form or not of the `problem_type`.
    """
    dataset, column = with_one_label_column(dataset, role, column)
    read = _read(dataset, column, role, problem_type)
    _tell_alike(read.kind, f"column `{column}` of the {role} dataset")
    _tell_joined(read.kind, f"column `{column}` of the {role} dataset")
    if problem_type is None:
        _tell_whole_numbers(read, f"column `{column}` of the {role} dataset")
    return _with_values(dataset, column, read), read.kind


def read_labels_as(
    dataset: Dataset, kind: LabelKind, role: str, column: LabelColumn = None, source: str = "the model"
) -> Dataset:
    """The rows with their labels numbered as those of other data, or of a model.

    Classes are matched by name where both have names: words, or whole numbers where a name is such. Other whole
    numbers are indices in `kind.class_names`. True and False are those of two names that say which is which.

    Args:
        dataset: rows with a label column.
        kind: of the training labels, or `model_labels` of a model.
        role: what the data set is for, for messages.
        column: as for `read_labels`.
        source: whose labels `kind` describes, for messages.

    Raises:
        ValueError: as `read_labels`; or a class that is not in `kind`, or another number of them.
    """
    dataset, column = with_one_label_column(dataset, role, column)
    read = _read(dataset, column, role, kind.problem_type, kind)
    if kind.problem_type == SINGLE_LABEL:
        values = as_indices(read, kind, role)
    elif kind.problem_type == MULTI_LABEL:
        values = as_several(read, kind, role, source)
    else:
        values = read.values
    if read.kind.problem_type != SINGLE_LABEL and read.kind.outputs != kind.outputs and values is read.values:
        raise ValueError(
            f"column `{column}` of the {role} dataset holds {read.kind.in_words()}, and {source} has {kind.outputs} "
            "outputs."
        )
    return _with_values(dataset, column, Read(kind, values))


def model_labels(config: PreTrainedConfig, rows: Dataset, role: str, column: LabelColumn = None) -> LabelKind:
    """What labels a model predicts: as its configuration says, or where that is silent as the rows' labels are.

    Args:
        config: of the model.
        rows: labelled rows.
        role: what they are for, for messages.
        column: their label column.
    """
    names = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    names = None if names == tuple(f"LABEL_{index}" for index in range(config.num_labels)) else names
    declared = declared_problem_type(config)
    if declared is None:
        declared = read_labels(rows, role, column)[1].problem_type
    return LabelKind(declared, config.num_labels, None if declared == REGRESSION else names)


def with_one_label_column(dataset: Dataset, role: str, column: LabelColumn = None) -> tuple[Dataset, str]:
    """The rows with no label column but the one to read, and its name: a collator that misses one reads the next.

    Raises:
        ValueError: there is none, or no such column.
    """
    if column is not None and not isinstance(column, str):
        dataset, column = with_joined_columns(dataset, role, column), "labels"
    if column is None:
        column = label_column(dataset, role)
    elif column not in dataset.column_names:
        raise ValueError(f"the {role} dataset has no label column `{column}`; it has {dataset.column_names}.")
    others = [name for name in LABEL_COLUMNS if name in dataset.column_names and name != column]
    dataset = dataset.remove_columns(others) if others else dataset
    if column not in LABEL_COLUMNS:
        dataset, column = dataset.rename_column(column, "labels"), "labels"
    return dataset, column


def with_named_classes(rows: Dataset, kind: LabelKind) -> Dataset:
    """Rows whose labels were read; classes as a ClassLabel also where some rows have none.

    Args:
        rows: of `read_labels` or `read_labels_as`, or without labels.
        kind: of their labels.
    """
    column = next((name for name in LABEL_COLUMNS if name in rows.column_names), None)
    if column is None or kind.problem_type != SINGLE_LABEL or not kind.class_names:
        return rows
    values = column_of(rows, column).to_pylist()
    if isinstance(rows.features[column], ClassLabel) or IGNORED_LABEL not in values:
        return rows
    kept = rows.with_format(None).remove_columns(column)
    feature = ClassLabel(names=list(kind.class_names))
    return kept.add_column(column, values, feature=feature).with_format(**format_of(rows))


def with_names_of_several(rows: Dataset, kind: LabelKind) -> Dataset:
    """Rows whose labels were read; several that may hold at once as lists of those that do, by name.

    Args:
        rows: of `read_labels` or `read_labels_as`, or without labels.
        kind: of their labels.
    """
    column = next((name for name in LABEL_COLUMNS if name in rows.column_names), None)
    if column is None or kind.problem_type != MULTI_LABEL or kind.class_names is None:
        return rows
    values = np.array(column_of(rows, column).to_pylist())
    if not np.isin(values, (0, 1)).all():
        return rows
    kept = rows.with_format(None).remove_columns(column)
    chosen = [np.flatnonzero(row).tolist() for row in values]
    feature = List(ClassLabel(names=list(kind.class_names)))
    return kept.add_column(column, chosen, feature=feature).with_format(**format_of(rows))


def are_hidden(rows: Dataset, column: LabelColumn = None) -> bool:
    """Whether no row has a label: all are empty, or -1 as where a benchmark keeps them back.

    Args:
        rows: with a label column.
        column: its name, where it is no usual one.
    """
    rows, column = with_one_label_column(rows, "test", column)
    return not any(value not in (None, -1, IGNORED_LABEL) for value in column_of(rows, column).to_pylist())


def has_labels(rows: Dataset, column: LabelColumn = None) -> bool:
    """Whether there is a label column, of the name that was asked for or of a usual one.

    Args:
        rows: of any role.
        column: the one that was asked for; of several any.
    """
    return any(name in rows.column_names for name in (LABEL_COLUMNS if column is None else label_names(column)))


def _with_values(dataset: Dataset, column: str, read: Read) -> Dataset:
    """The rows with these labels in the column, of the type that they have; as they are where nothing changes."""
    feature, kind = dataset.features[column], read.kind
    is_same = column_of(dataset, column).to_pylist() == read.values.tolist()
    if kind.problem_type != SINGLE_LABEL:
        wanted: Any = Value("float32") if read.values.ndim == 1 else List(Value("float32"))
    elif is_same and "int" in str(getattr(feature, "dtype", "")) and not isinstance(feature, ClassLabel):
        wanted = feature
    elif kind.class_names is not None and (read.values >= 0).all():
        wanted = ClassLabel(names=list(kind.class_names))
    else:
        wanted = Value("int64")
    if feature == wanted and is_same:
        return dataset
    kept = dataset.with_format(None).remove_columns(column)
    return kept.add_column(column, read.values.tolist(), feature=wanted).with_format(**format_of(dataset))


def _read(dataset: Dataset, column: str, role: str, problem_type: str | None, like: LabelKind | None = None) -> Read:
    if problem_type not in (None, *PROBLEM_TYPES):
        raise ValueError(f"`problem_type` should be one of {list(PROBLEM_TYPES)}, got {problem_type!r}.")
    values, feature = column_of(dataset, column), dataset.features[column]
    holes = empty_cells(values)
    if len(holes):
        refuse_rows(dataset, column, holes, role, f"has no label (a row without one has {IGNORED_LABEL})")
    where = f"column `{column}` of the {role} dataset"
    kind, several = values.type, (like or LabelKind(MULTI_LABEL, 1)) if problem_type == MULTI_LABEL else None
    if _is_list(kind):
        inner = getattr(feature, "feature", None)
        read = _of_lists(values.to_pylist(), inner.names if isinstance(inner, ClassLabel) else None, where, several)
    elif isinstance(feature, ClassLabel):
        read = Read(_classes(feature.names), values.to_numpy().astype(np.int64))
    elif pa.types.is_boolean(kind):
        read = Read(_classes(["False", "True"]), np.array(values.to_pylist()).astype(np.int64))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        read = _of_words(dataset, column, role, [str(word).strip() for word in values.to_pylist()], several)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        read = _of_numbers(values.to_numpy(), problem_type, where)
    else:
        raise ValueError(f"{where} holds values of type {feature}, which are no labels: words, numbers or lists are.")
    return _as_asked(read, problem_type, where)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _classes(names: Sequence[str]) -> LabelKind:
    return LabelKind(SINGLE_LABEL, len(names), tuple(names))


def _tell_alike(kind: LabelKind, where: str) -> None:
    """Warn of classes whose names a person would hardly tell apart."""
    alike: dict[str, list[str]] = {}
    for name in kind.class_names or ():
        alike.setdefault(unicodedata.normalize("NFKC", name).casefold(), []).append(name)
    if same := ["/".join(map(repr, names)) for names in alike.values() if len(names) > 1]:
        logger.warning(
            f"{where} has classes whose names differ in capitals or in the form of their letters alone: "
            f"{', '.join(same[:10])}. Where they are one class, write it one way."
        )


def _tell_joined(kind: LabelKind, where: str) -> None:
    """Warn of classes that look like several labels in one text: fewer parts between separators than texts."""
    names = kind.class_names or () if kind.problem_type == SINGLE_LABEL else ()
    for separator in JOINING:
        joined = [name for name in names if separator in name]
        parts = {part.strip() for name in names for part in name.split(separator)}
        if joined and len(parts) < len(names):
            logger.warning(
                f"{where} has classes such as {joined[0]!r}, which is read as one class. Where these are several "
                'labels of a row, write them as a list, such as ["sea", "old"].'
            )
            return


def _tell_whole_numbers(read: Read, where: str) -> None:
    """Warn of lists of numbers to predict that look like numbers of classes."""
    values = read.values
    if read.kind.problem_type != REGRESSION or read.kind.outputs < 2 or (values < 0).any() or (values % 1).any():
        return
    if all(len(set(row)) == len(row) for row in values.tolist()):
        logger.warning(
            f"{where} holds lists of whole numbers, such as {values[0].astype(int).tolist()}, read as numbers "
            f'to predict. Where they are numbers of classes, say so by problem_type="{MULTI_LABEL}".'
        )


def _as_asked(read: Read, problem_type: str | None, where: str) -> Read:
    """Labels of lists, or of numbers, read as the problem type that was asked for."""
    if problem_type is None or read.kind.problem_type == problem_type:
        return read
    numbers = read.values if read.given is None else read.given
    is_numeric = not read.kind.from_numbers and (read.given is not None or read.kind.class_names is None)
    if problem_type == REGRESSION and is_numeric:
        return Read(LabelKind(REGRESSION, read.kind.outputs if numbers.ndim > 1 else 1), numbers.astype(np.float32))
    if problem_type == MULTI_LABEL and is_numeric and ((numbers >= 0) & (numbers <= 1)).all():
        numbers = numbers.reshape(len(numbers), -1).astype(np.float32)
        return Read(LabelKind(MULTI_LABEL, numbers.shape[1]), numbers)
    hint = ' Write several labels of a row as a list, such as ["sea", "old"].' if problem_type == MULTI_LABEL else ""
    raise ValueError(f"{where} holds {read.kind.in_words()}, and these are no labels of {problem_type}.{hint}")


def _of_words(dataset: Dataset, column: str, role: str, words: list[str], several: LabelKind | None) -> Read:
    empty = np.flatnonzero([not word for word in words])
    if not len(empty):
        # Among numbers, NA is a missing number; among words it is a word.
        missing = np.array([word.lower() in NOT_A_NUMBER for word in words])
        if missing.any() and all(_is_number(word) for word, is_out in zip(words, missing) if not is_out):
            empty = np.flatnonzero(missing)
    if len(empty):
        refuse_rows(dataset, column, empty, role, f"has no label (a row without one has {IGNORED_LABEL})")
    where = f"column `{column}` of the {role} dataset"
    try:
        lists = read_lists(words)
    except ValueError as error:
        raise ValueError(f"{where} {error}") from None
    if lists is not None:
        return _of_lists(lists, None, where, several)
    if have_decimal_commas(words):
        raise ValueError(
            f"{where} holds numbers with a comma such as {next(word for word in words if ',' in word)!r}: write "
            "numbers to predict with a point, and several labels a row as a list in brackets."
        )
    names = sorted(set(words) - {str(IGNORED_LABEL)})
    _check_count(len(names), len(words), where)
    number = {name: index for index, name in enumerate(names)} | {str(IGNORED_LABEL): IGNORED_LABEL}
    return Read(_classes(names), np.array([number[word] for word in words]))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _of_numbers(values: np.ndarray, problem_type: str | None, where: str) -> Read:
    known = values[values != IGNORED_LABEL]
    is_whole = bool(np.isfinite(known).all() and (known == np.round(known)).all())
    # So many different numbers with a point are rather measured than counted.
    is_measured = values.dtype.kind == "f" and problem_type is None and _are_too_many(known)
    if problem_type == REGRESSION or not is_whole or is_measured:
        return Read(LabelKind(REGRESSION, 1), values.astype(np.float32))
    whole = values.astype(np.int64)
    known = np.unique(known.astype(np.int64))
    if not len(known):
        return Read(LabelKind(SINGLE_LABEL, 0, ()), whole, whole)
    if known[0] < 0:
        raise ValueError(
            f"{where} should number at least two classes from 0 on, with {IGNORED_LABEL} for no label; it holds "
            f"{known[:10].tolist()}. Negative numbers are no classes: write words, or read them as numbers to predict "
            f'by problem_type="{REGRESSION}".'
        )
    _check_count(len(known), len(values), where)
    # A class without a row here may have some elsewhere, unless most numbers in between are no classes.
    span = np.arange(0 if known[0] == 0 else known[0], known[-1] + 1)
    numbers = span if len(span) <= 2 * len(known) or known[0] == 0 else known
    index = np.searchsorted(numbers, whole)
    return Read(_classes([str(one) for one in numbers]), np.where(whole == IGNORED_LABEL, whole, index), whole)


def _are_too_many(values: np.ndarray) -> bool:
    """Whether there are more different labels than rows to learn them from."""
    different = len(np.unique(values))
    return different > FEW_CLASSES and different > len(values) / 2


def _check_count(classes: int, rows: int, where: str) -> None:
    if classes > FEW_CLASSES and classes > rows / 2:
        raise ValueError(
            f"{where} holds {classes} different labels in {rows} rows: these are hardly classes. Name the label "
            f'column by `label_column`, or read numbers as such by problem_type="{REGRESSION}" or as floats.'
        )


def _of_lists(rows: list[list], names: list[str] | None, where: str, several: LabelKind | None) -> Read:
    """Labels of lists.

    Args:
        rows: a list each.
        names: of class numbers, where these are a ClassLabel.
        where: the column, for messages.
        several: where several labels may hold at once, what the others are; of one output where that is not known.
    """
    flat = [one for row in rows for one in row]
    if any(isinstance(one, list) for one in flat):
        raise ValueError(f"{where} holds lists of lists, which are no labels of a row.")
    if names is not None or (flat and all(isinstance(one, str) for one in flat)):
        names = sorted({one.strip() for one in flat}) if names is None else names
        number = {name: index for index, name in enumerate(names)}
        chosen = [[number[one.strip()] if isinstance(one, str) else one for one in row] for row in rows]
        return Read(LabelKind(MULTI_LABEL, len(names), tuple(names)), _several_hot(chosen, len(names), where))
    lengths = {len(row) for row in rows}
    could_be_classes = bool(flat) and all(float(one).is_integer() and one >= 0 for one in flat)
    could_be_classes = could_be_classes and all(len(set(row)) == len(row) for row in rows)
    are_classes = could_be_classes and several is not None
    are_classes = are_classes and (max(flat) > 1 or _are_no_cells(flat, lengths, several))
    if len(lengths) > 1 or are_classes:
        if not could_be_classes:
            raise ValueError(
                f"{where} holds lists of {min(lengths)} to {max(lengths)} numbers: labels that may hold at once are "
                "lists of 0 and 1, as many in every row, or lists of different class numbers or names."
            )
        count = int(max(flat)) + 1
        values = _several_hot(rows, count, where)
        return Read(LabelKind(MULTI_LABEL, count, from_numbers=True), values, values)
    values = np.array(rows, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"{where} holds empty lists: there is no label in any row.")
    hot = ((values == 0) | (values == 1) | (values == IGNORED_LABEL)).all()
    if hot and could_be_classes and _are_counted(flat) and all(row == sorted(row) for row in rows):
        logger.warning(
            f"{where} holds lists such as {rows[0]} alone, read as a 0 or 1 for each of {values.shape[1]} labels. "
            "Where they are numbers of classes, write names in their place."
        )
    return Read(LabelKind(MULTI_LABEL if hot else REGRESSION, values.shape[1]), values)


def _are_counted(flat: list) -> bool:
    """Whether numbers were written without a point, and not as True and False."""
    return all(isinstance(one, int) and not isinstance(one, bool) for one in flat)


def _are_no_cells(flat: list, lengths: set[int], several: LabelKind) -> bool:
    """Whether lists of 0 and 1 are class numbers: the other labels were, or there are as many labels in no list."""
    if any(isinstance(one, bool) for one in flat):
        return False
    return (several.from_numbers and _are_counted(flat)) or (several.outputs > 1 and several.outputs not in lengths)


def _several_hot(chosen: list[list], count: int, where: str) -> np.ndarray:
    """[N, count]: 1 for the numbers of a row."""
    values = np.zeros((len(chosen), count), dtype=np.float32)
    for index, row in enumerate(chosen):
        if any(not 0 <= one < count for one in row):
            raise ValueError(f"{where} holds class numbers outside 0..{count - 1}, first in row {index}.")
        values[index, [int(one) for one in row]] = 1
    return values
