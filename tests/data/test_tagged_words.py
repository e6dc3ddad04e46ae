"""Words and tags in the forms that users have them, and what is refused."""

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.data.labels import LabelKind
from hf_transfer.data.tagged_words import (
    find_word_column,
    holds_tagged_words,
    read_tags,
    split_cell,
    with_word_lists,
)

WORDS, TAGS = [["John", "lives"], ["Rome"]], [["B-PER", "O"], ["B-LOC"]]


def rows(words=WORDS, tags=TAGS, **others) -> Dataset:
    return Dataset.from_dict({"tokens": words, "ner_tags": tags, **others})


def tagged(data: Dataset, **keywords):
    return read_tags(with_word_lists(data, "training", **keywords), "training")


@pytest.mark.parametrize(
    "data",
    [
        rows(),
        rows(["John lives", "Rome"], ["B-PER O", "B-LOC"]),
        rows(['["John", "lives"]', '["Rome"]'], ["['B-PER', 'O']", "['B-LOC']"]),
        Dataset.from_dict(
            {"tokens": WORDS, "ner_tags": [[0, 2], [1]]},
            features=Features(
                {"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["B-PER", "B-LOC", "O"]))}
            ),
        ),
    ],
)
def test_every_form_gives_the_same_words_and_tags(data):
    read, kind = tagged(data)
    assert read["words"][:] == WORDS
    assert [[kind.class_names[tag] for tag in row] for row in read["labels"]] == TAGS
    assert kind.problem_type == SINGLE_LABEL and kind.outputs == 3 and "tokens" not in read.column_names


def test_other_columns_stay_and_numbers_name_their_classes():
    read, kind = tagged(rows(tags=[[2, -100], [0]], domain=[0, 1]))
    assert read["domain"][:] == [0, 1] and read["labels"][:] == [[2, -100], [0]]
    assert kind.class_names == ("0", "1", "2")


def test_tags_of_text_without_their_spaces_and_without_a_class():
    read, kind = tagged(rows(tags=[["B-PER ", " O"], ["-100"]]))
    assert kind.class_names == ("B-PER", "O") and read["labels"][:] == [[0, 1], [-100]]
    assert tagged(rows(["a b", "c"], ["-100 1", "0"]))[0]["labels"][:] == [[-100, 1], [0]]


def test_tags_are_numbered_by_the_names_of_others():
    kind = LabelKind(SINGLE_LABEL, 4, ("O", "B-LOC", "B-MISC", "B-PER"))
    assert read_tags(with_word_lists(rows(), "test"), "test", kind)[0]["labels"][:] == [[3, 0], [1]]
    with_names = rows().cast_column("ner_tags", List(ClassLabel(names=["B-PER", "B-LOC", "O"])))
    assert read_tags(with_word_lists(with_names, "test"), "test", kind)[0]["labels"][:] == [[3, 0], [1]]
    unknown = with_word_lists(rows(tags=[["B-PER", "O"], ["B-ORG"]]), "test")
    with pytest.raises(ValueError, match="row 1 of the test dataset has the label 'B-ORG', which is none of the 4 of"):
        read_tags(unknown, "test", kind)
    with pytest.raises(ValueError, match="row 0 of the test dataset has the label 9, which is none"):
        read_tags(with_word_lists(rows(tags=[[9, 0], [0]]), "test"), "test", kind)


def test_numbers_are_tags_by_value_where_the_names_of_others_are_numbers():
    kind = tagged(rows(tags=[["1", "2"], ["3"]]))[1]
    assert kind.class_names == ("1", "2", "3")
    assert read_tags(with_word_lists(rows(tags=[[1, 3], [2]]), "test"), "test", kind)[0]["labels"][:] == [[0, 2], [1]]
    with pytest.raises(ValueError, match="row 0 of the test dataset has the label 0, which is none of the 3"):
        read_tags(with_word_lists(rows(tags=[[1, 0], [2]]), "test"), "test", kind)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (rows(tags=[["O"], ["O"]]), "row 0 of the training .* has 2 words in column `tokens` and 1 labels in column"),
        (rows(words=[["John", ""], ["Rome"]]), "row 0 of column `tokens` .* holds an empty word"),
        (rows(words=[None, ["Rome"]]), "column `tokens` of the training dataset is empty in row 0"),
        (rows(words=[["John", None], ["Rome"]]), "column `tokens` of the training dataset is empty in row 0"),
        (rows(words=["['John' 'lives']", "Rome"], tags=["O O", "O"]), "row 0 .* holds a list without commas"),
        (rows(tags=[1, 2]), "column `ner_tags` of the training dataset holds one int64 a row: a tag for every word"),
        (rows(tags=[[-100, -100], [-100]]), "the training dataset has no label"),
        (rows(tags=[[-1, 0], [0]]), "labels such as -1"),
        (rows(words=['["John", null]', "Rome"], tags=["O O", "O"]), "row 0 .* holds a list with an empty item"),
        (rows(others=[["x", "y"], ["z"]]).rename_column("tokens", "t"), "found 2 columns of words"),
    ],
)
def test_what_cannot_be_read_is_named(data, message):
    with pytest.raises(ValueError, match=message):
        tagged(data)


def test_columns_are_found_or_named():
    data = rows(lemmas=[["x", "y"], ["z"]], text=["John lives", "Rome"])
    assert find_word_column(data) == "tokens" and find_word_column(data, ["lemmas"]) == "lemmas"
    assert holds_tagged_words(data) and holds_tagged_words(data.select_columns(["ner_tags", "text"]))
    with pytest.raises(ValueError, match="should name the one column of words, got .'x'."):
        find_word_column(data, ["x"])
    with pytest.raises(ValueError, match="there is no label column `x`"):
        with_word_lists(data, "training", tag_column="x")


@pytest.mark.parametrize(
    ("data", "holds"),
    [
        (rows(["John lives", "Rome"], ["B-PER O", "B-LOC"]), True),
        (rows(['["John", "lives"]', '["Rome"]'], ["['B-PER', 'O']", "['B-LOC']"]), True),
        (rows(["John lives", "Rome", "He"], ["B-PER O", "B-LOC", "O O"]), True),  # row 2 is a mistake
        (rows(["John lives", "Rome", "He"], ["B-PER O", None, "O"]), True),
        (rows(["John lives in", "Rome is old"], ["world news", "city"]), False),
        (rows(["John", "Rome"], ["O", "O"]), False),  # as well one class a text
        (rows(["John lives", "Rome"], ["B-PER O", "B-LOC"]).rename_column("ner_tags", "label"), True),
        (rows(["John lives", "Rome old"], ["B-PER O", "B-LOC"]).rename_column("ner_tags", "label"), False),
        (rows([1, 2], ["B-PER O", "B-LOC"]), False),
    ],
)
def test_text_is_words_and_tags_where_there_are_as_many(data, holds):
    assert holds_tagged_words(data) == holds


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        ("a b  c", ["a", "b", "c"]),
        ('["a", "b c"]', ["a", "b c"]),
        ("['a', \"it's\"]", ["a", "it's"]),
        ("[1, 0]", ["1", "0"]),
        ("10\u00a0000 euros\t\u3000x", ["10\u00a0000", "euros", "\u3000x"]),
        ("[Music] plays", ["[Music]", "plays"]),
        ("[laughs]", ["[laughs]"]),
        ("", []),
    ],
)
def test_cells_of_csv_files(cell, items):
    assert split_cell(cell) == items
