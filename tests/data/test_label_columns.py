"""Several columns that are labels, joined to one of lists."""

import numpy as np
import pytest
from datasets import Dataset

from hf_transfer.core.task_loss import MULTI_LABEL, REGRESSION
from hf_transfer.data.label_columns import with_joined_columns
from hf_transfer.data.labels import has_labels, read_labels, read_labels_as, with_names_of_several

TEXTS = {"text": ["a", "b", "c"]}


def table(**columns):
    return Dataset.from_dict({**TEXTS, **columns})


@pytest.mark.parametrize("values", [[[0, 1, 1], [0, 0, 1]], [[0.0, 1.0, 1.0], [False, False, True]]])
def test_columns_of_0_and_1_are_labels_by_their_names(values):
    rows = table(toxic=values[0], insult=values[1], label=["x", "y", "z"])
    assert has_labels(rows.remove_columns("label"), ["toxic", "insult"])
    read, kind = read_labels(rows, "training", ["toxic", "insult"])
    assert (kind.problem_type, kind.class_names) == (MULTI_LABEL, ("toxic", "insult"))
    assert read["labels"][:] == [[0, 0], [1, 0], [1, 1]] and read.column_names == ["text", "labels"]


def test_other_rows_are_numbered_by_the_names_in_any_order():
    _, kind = read_labels(table(b=[0, 1, 0], a=[1, 1, 0]), "training", ["b", "a"])
    test = read_labels_as(table(a=[1, 0, 0], b=[0, 0, 1]), kind, "test", ["a", "b"])
    assert test["labels"][:] == [[0, 1], [0, 0], [1, 0]]


def test_columns_of_numbers_are_all_predicted():
    read, kind = read_labels(table(width=[0.5, 2.0, -1.0], height=[1, 0, 1]), "training", ["width", "height"])
    assert (kind.problem_type, kind.outputs) == (REGRESSION, 2)
    assert np.allclose(read["labels"][:], [[0.5, 1], [2, 0], [-1, 1]])


def test_one_column_in_a_list_is_that_column():
    joined = with_joined_columns(table(mine=[3, 1, 2], labels=[0, 0, 0]), "training", ["mine"])
    assert joined["labels"][:] == [3, 1, 2] and joined.column_names == ["text", "labels"]


def test_what_labels_no_row_is_refused_where_labels_are_read():
    rows = table(toxic=[0, None, 1], insult=[0, 0, 1])
    assert with_joined_columns(rows, "target", ["toxic", "insult"])["labels"][:] == [[], None, [0, 1]]
    with pytest.raises(ValueError, match="has no label .* in row 1"):
        read_labels(rows, "training", ["toxic", "insult"])


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        ({"a": [0, 1, 0]}, ["a", "b"], r"it has no \['b'\]; its columns are \['text', 'a'\]"),
        ({"a": [0, 1, 0]}, ["a", "a"], "each once"),
        ({"a": [0, 1, 0]}, [], "each once"),
        ({"a": [0, 1, 0], "b": ["yes", "no", "no"]}, ["a", "b"], "column `b` of the training dataset .*named alone"),
        ({"a": [0, 1, 0], "b": [1, -100, 0]}, ["a", "b"], "hold 0, 1 and -100"),
    ],
)
def test_columns_that_are_no_labels_are_refused(columns, names, message):
    with pytest.raises(ValueError, match=message):
        read_labels(table(**columns), "training", names)


def test_read_labels_are_written_by_name_and_read_alike():
    rows, kind = read_labels(table(sea=[0, 1, 1], old=[1, 0, 1]), "training", ["sea", "old"])
    written = with_names_of_several(rows, kind)
    again, same = read_labels(written, "training", problem_type=MULTI_LABEL)
    assert same == kind and again["labels"][:] == rows["labels"][:]
    without = rows.remove_columns("labels")
    assert with_names_of_several(without, kind) is without
