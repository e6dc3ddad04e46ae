from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_transfer.core.task_loss import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from hf_transfer.data.labels import LabelKind, model_labels, read_labels, read_labels_as, with_named_classes

STARS = ("1", "2", "3", "4", "5")


def rows(labels, feature=None, column="label"):
    data = Dataset.from_dict({column: labels, "text": [f"row {place}" for place in range(len(labels))]})
    return data if feature is None else data.cast_column(column, feature)


@pytest.mark.parametrize(
    ("labels", "problem_type", "names", "values"),
    [
        ([True, False, True], SINGLE_LABEL, ("False", "True"), [1, 0, 1]),
        ([0, 2, 1], SINGLE_LABEL, ("0", "1", "2"), [0, 2, 1]),
        ([1, 5, 2, 4, 3], SINGLE_LABEL, STARS, [0, 4, 1, 3, 2]),
        ([1, 5, 2], SINGLE_LABEL, STARS, [0, 4, 1]),
        ([100, 300, 200], SINGLE_LABEL, ("100", "200", "300"), [0, 2, 1]),
        ([1.0, 2.0, 1.0], SINGLE_LABEL, ("1", "2"), [0, 1, 0]),
        ([0.0, 1.0, 1.0], SINGLE_LABEL, ("0", "1"), [0, 1, 1]),
        (["very good", "bad", "very good"], SINGLE_LABEL, ("bad", "very good"), [1, 0, 1]),
        ([" good", "good ", "bad"], SINGLE_LABEL, ("bad", "good"), [1, 1, 0]),
        (["None", "some", "NA"], SINGLE_LABEL, ("NA", "None", "some"), [1, 2, 0]),
        ([0, -100, 1], SINGLE_LABEL, ("0", "1"), [0, -100, 1]),
        ([1, -100, 2], SINGLE_LABEL, ("1", "2"), [0, -100, 1]),
        ([0.5, 1.0, 2.0], REGRESSION, None, [0.5, 1.0, 2.0]),
        ([[0, 1, 1], [0, 0, 0]], MULTI_LABEL, None, [[0, 1, 1], [0, 0, 0]]),
        ([[0.0, 1.0], [1.0, 1.0]], MULTI_LABEL, None, [[0, 1], [1, 1]]),
        ([[True, False], [True, True]], MULTI_LABEL, None, [[1, 0], [1, 1]]),
        ([[0.5, 1.5], [1.0, 0.0]], REGRESSION, None, [[0.5, 1.5], [1, 0]]),
        ([["b", "a"], ["a"], []], MULTI_LABEL, ("a", "b"), [[1, 1], [1, 0], [0, 0]]),
        ([[2], [0, 1], []], MULTI_LABEL, None, [[0, 0, 1], [1, 1, 0], [0, 0, 0]]),
        (["['b', 'a']", '["a"]', " [] "], MULTI_LABEL, ("a", "b"), [[1, 1], [1, 0], [0, 0]]),
        (["[1, 0]", "[True, True]"], MULTI_LABEL, None, [[1, 0], [1, 1]]),
        (["[0.5, 1]", "[2, -1.5]"], REGRESSION, None, [[0.5, 1], [2, -1.5]]),
        (["[INFO]", "[WARN]"], SINGLE_LABEL, ("[INFO]", "[WARN]"), [0, 1]),
    ],
)
def test_what_a_column_of_labels_is(labels, problem_type, names, values):
    read, kind = read_labels(rows(labels), "training")
    assert (kind.problem_type, kind.class_names) == (problem_type, names)
    assert np.asarray(read["label"][:]).tolist() == values
    assert kind.outputs == (len(names) if names else np.asarray(values).reshape(len(values), -1).shape[1])
    assert read["text"][:] == rows(labels)["text"][:]


def test_labels_with_names_of_their_own():
    read, kind = read_labels(rows([1, 0], ClassLabel(names=["no", "yes", "perhaps"])), "training")
    assert kind == LabelKind(SINGLE_LABEL, 3, ("no", "yes", "perhaps")) and read["label"][:] == [1, 0]
    several = Features({"label": List(ClassLabel(names=["joy", "fear"])), "text": Value("string")})
    read, kind = read_labels(Dataset.from_dict({"label": [[1], [0, 1]], "text": ["a", "b"]}, several), "training")
    assert kind == LabelKind(MULTI_LABEL, 2, ("joy", "fear")) and read["label"][:] == [[0, 1], [1, 1]]


def test_classes_are_named_in_the_rows_and_numbers_from_zero_stay():
    assert read_labels(rows([1, 2]), "training")[0].features["label"].names == ["1", "2"]
    assert read_labels(rows([True, False]), "training")[0].features["label"].names == ["False", "True"]
    plain = rows([0, 1])
    assert read_labels(plain, "training")[0] is plain


@pytest.mark.parametrize("labels", [["good", "Good ", "bad"], ["caf\u00e9", "cafe\u0301", "bar"], [["A"], ["a", "b"]]])
def test_classes_that_look_alike_are_told(labels, caplog):
    read_labels(rows(labels), "training")
    assert "`label` of the training dataset has classes whose names differ in capitals or" in caplog.text
    caplog.clear()
    read_labels(rows(["good", "well", "bad"]), "training")
    assert not caplog.records


@pytest.mark.parametrize(
    ("labels", "places"),
    [
        ([0, None, 1], "1"),
        (["a", None, "b", None], "1, 3"),
        (["a", " ", "b"], "1"),
        (["0", "1", "NA"], "2"),
        (["0.5", "none", "1"], "1"),
        ([0.5, float("nan")], "1"),
        ([True, None], "1"),
        ([[0, 1], [1, None]], "1"),
        ([[0, 1], None], "1"),
        ([None] * 7, "0, 1, 2, 3, 4 and 2 more"),
    ],
)
def test_an_empty_label_is_refused_with_its_row(labels, places):
    with pytest.raises(ValueError, match=rf"column `label` of the training dataset has no label .* in row {places} "):
        read_labels(rows(labels), "training")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([-1, 1], "should number at least two classes"),
        (list(range(1, 61)), "60 different labels in 60 rows: these are hardly classes"),
        ([[0, 3], [1]], None),
        ([[0, 1, 1], [1]], "lists of 1 to 3 numbers"),
        ([[], []], "empty lists"),
        ([[[1]], [[0]]], "lists of lists"),
        (["[1 0]", "[0 1]"], r"holds '\[1 0\]', which is no list as JSON or Python write it"),
        (["['a' 'b']", "['a']"], "a list without commas between its items"),
        (["[1, null]", "[0, 1]"], "of words and of numbers, or with empty items"),
        (["1,5", "2", "-0,25"], "numbers with a comma such as '1,5': write numbers to predict with a point"),
    ],
)
def test_labels_of_no_known_form(labels, message):
    if message is None:
        assert read_labels(rows(labels), "training")[1].outputs == 4
    else:
        with pytest.raises(ValueError, match=message):
            read_labels(rows(labels), "training")


def test_dates_are_no_labels():
    days = Dataset.from_pandas(pandas.DataFrame({"label": pandas.to_datetime(["2020-01-01", "2021-01-01"])}))
    with pytest.raises(ValueError, match="which are no labels"):
        read_labels(days, "training")


@pytest.mark.parametrize("labels", [[1, 5, 3], [1.0, 5.0, 3.0], [1.5, 5.0, 3.0]])
def test_whole_numbers_are_numbers_to_predict_where_asked(labels):
    read, kind = read_labels(rows(labels), "training", problem_type=REGRESSION)
    assert kind == LabelKind(REGRESSION, 1) and read["label"][:] == labels
    assert read.features["label"].dtype == "float32"


def test_lists_of_as_many_class_numbers_where_asked(caplog):
    labels = [[0, 1], [1, 2], [2, 0]]
    read, kind = read_labels(rows(labels), "training", problem_type=MULTI_LABEL)
    assert kind == LabelKind(MULTI_LABEL, 3) and read["label"][:] == [[1, 1, 0], [0, 1, 1], [1, 0, 1]]
    assert not caplog.records
    assert read_labels(rows(labels), "training")[1] == LabelKind(REGRESSION, 2)
    assert "`label` of the training dataset holds lists of whole numbers, such as [0, 1], read" in caplog.text
    with pytest.raises(ValueError, match="numbers to predict, and these are no labels of multi_label"):
        read_labels(rows([[0.5, 2.0]]), "training", problem_type=MULTI_LABEL)


@pytest.mark.parametrize("labels", [["a,b", "b", "a", "c, b"], ["a;b", "b", "a"], ["a|b", "a", "b"]])
def test_several_labels_in_one_text_are_told(labels, caplog):
    kind = read_labels(rows(labels), "training")[1]
    assert kind.problem_type == SINGLE_LABEL and f"classes such as {labels[0]!r}, which is read as one" in caplog.text
    caplog.clear()
    read_labels(rows(["Paris, France", "Rome, Italy"]), "training")
    assert not caplog.records


def test_words_beside_rows_without_a_label():
    """A row without a label has -100, which is text in a column of words."""
    read, kind = read_labels(rows(["b", "-100", "a", " -100 "]), "training")
    assert kind.class_names == ("a", "b") and read["label"][:] == [1, -100, 0, -100]
    again, same = read_labels(with_named_classes(read, kind), "training")
    assert same == kind and again["label"][:] == read["label"][:], "written and read once more"
    other = read_labels_as(rows(["-100", "a"]), LabelKind(SINGLE_LABEL, 3, ("c", "b", "a")), "test")
    assert other["label"][:] == [-100, 2]


def test_the_problem_type_is_checked():
    with pytest.raises(ValueError, match="these are no labels of regression"):
        read_labels(rows(["a", "b"]), "training", problem_type=REGRESSION)
    with pytest.raises(ValueError, match="these are no labels of single_label"):
        read_labels(rows([0.5, 1.5]), "training", problem_type=SINGLE_LABEL)
    with pytest.raises(ValueError, match=r'Write several labels of a row as a list, such as \["sea", "old"\]'):
        read_labels(rows(["a,b", "b"]), "training", problem_type=MULTI_LABEL)
    with pytest.raises(ValueError, match="`problem_type` should be one of"):
        read_labels(rows([0, 1]), "training", problem_type="classes")


def test_another_label_column_replaces_the_usual_ones():
    data = rows([1, 2], column="stars").add_column("label", [0, 0])
    read, kind = read_labels(data, "training", "stars")
    assert kind.class_names == ("1", "2") and sorted(read.column_names) == ["labels", "text"]
    with pytest.raises(ValueError, match=r"no label column `star`; it has"):
        read_labels(data, "training", "star")


class TestLabelsOfOtherData:
    def read(self, labels, kind, feature=None):
        return read_labels_as(rows(labels, feature), kind, "test")["label"][:]

    def test_stars_are_matched_by_their_number(self):
        assert self.read([5, 3], LabelKind(SINGLE_LABEL, 5, STARS)) == [4, 2]
        assert self.read(["5", "3"], LabelKind(SINGLE_LABEL, 5, STARS)) == [4, 2]
        with pytest.raises(ValueError, match=r"none of the 5 that the model is to tell apart .*: 6"):
            self.read([6, 3], LabelKind(SINGLE_LABEL, 5, STARS))

    def test_words_are_matched_by_name_and_numbers_by_place(self):
        kind = LabelKind(SINGLE_LABEL, 3, ("b", "c", "a"))
        assert self.read(["a", "b"], kind) == [2, 0]
        assert self.read([0, 1], kind, ClassLabel(names=["a", "c"])) == [2, 1]
        assert self.read([0, 2], kind) == [0, 2]

    def test_numbers_in_the_place_of_words_are_told(self, caplog):
        self.read([0, 2], LabelKind(SINGLE_LABEL, 3, ("b", "c", "a")))
        assert "numbers in the place of classes, read as those of 0 b, 1 c, 2 a." in caplog.text
        caplog.clear()
        self.read([0, 2], LabelKind(SINGLE_LABEL, 3, ("0", "1", "2")))
        self.read([0, 2], LabelKind(SINGLE_LABEL, 3))
        assert not caplog.records

    def test_true_and_false(self):
        assert self.read([True, False], LabelKind(SINGLE_LABEL, 2, ("False", "True"))) == [1, 0]
        assert self.read([True, False], LabelKind(SINGLE_LABEL, 2, ("bad", "good"))) == [1, 0]

        assert self.read([True, False], LabelKind(SINGLE_LABEL, 2)) == [1, 0]

    @pytest.mark.parametrize(
        "names", [("yes", "no"), ("POSITIVE", "NEGATIVE"), ("1", "0"), ("spam", "not spam"), ("toxic", "non-toxic")]
    )
    def test_true_and_false_are_matched_by_what_the_names_say(self, names):
        assert self.read([True, False, True], LabelKind(SINGLE_LABEL, 2, names)) == [0, 1, 0]

    @pytest.mark.parametrize("names", [("ham", "spam"), ("1", "2"), ("a", "b", "c")])
    def test_true_and_false_of_other_names_are_refused(self, names):
        with pytest.raises(ValueError, match="True and False, and which of the classes .* is not known: write the"):
            self.read([True, False], LabelKind(SINGLE_LABEL, len(names), names))

    def test_numbers_are_matched_by_value_where_a_name_is_a_number(self):
        assert self.read([2, 1], LabelKind(SINGLE_LABEL, 3, ("1", "2", "unknown"))) == [1, 0]
        assert self.read([0, 1], LabelKind(SINGLE_LABEL, 3, ("-1", "0", "1"))) == [1, 2]
        assert self.read([1, 3], LabelKind(SINGLE_LABEL, 3, ("01", "02", "03"))) == [0, 2]
        assert self.read([1, -100], LabelKind(SINGLE_LABEL, 3, ("1", "01", "02"))) == [0, -100]
        with pytest.raises(ValueError, match=": 0"):
            self.read([0, 1], LabelKind(SINGLE_LABEL, 3, ("1", "2", "unknown")))
        # these are words
        assert self.read([0, 1], LabelKind(SINGLE_LABEL, 2, ("nan", "1_0"))) == [0, 1]

    def test_a_model_without_names_has_as_many_classes(self):
        assert self.read(["a", "b"], LabelKind(SINGLE_LABEL, 2)) == [0, 1]
        with pytest.raises(ValueError, match="has 2 classes and the model 3"):
            self.read(["a", "b"], LabelKind(SINGLE_LABEL, 3))

    def test_several_labels_by_name(self):
        kind = LabelKind(MULTI_LABEL, 3, ("x", "a", "b"))
        assert self.read([["b"], ["a", "b"]], kind) == [[0, 0, 1], [0, 1, 1]]
        assert self.read([[0, 0, 1], [1, 0, 1]], kind) == [[0, 0, 1], [1, 0, 1]]
        assert self.read([[1], [0, 1]], LabelKind(MULTI_LABEL, 3)) == [[0, 1, 0], [1, 1, 0]]
        with pytest.raises(ValueError, match="labels that the model does not know .*: c"):
            self.read([["c"], ["a", "b"]], kind)
        with pytest.raises(ValueError, match="2 labels that may hold at once, and the model has 3 outputs"):
            self.read([[0, 1], [1, 1]], kind)

    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            ([[0], [2]], [[1, 0, 0], [0, 0, 1]]),  # as many in every row
            ([[0], [1]], [[1, 0, 0], [0, 1, 0]]),
            ([[1, 2]], [[0, 1, 1]]),
            (["[2]", "[0]"], [[0, 0, 1], [1, 0, 0]]),
        ],
    )
    def test_numbers_of_several_labels(self, labels, expected):
        """Whatever the rows of a test set are, as the ragged lists of the training rows."""
        kind = read_labels(rows([[0], [1, 2]]), "training")[1]
        assert self.read(labels, kind) == expected
        assert self.read(labels, LabelKind(MULTI_LABEL, 3, ("x", "a", "b"))) == expected
        with pytest.raises(ValueError, match="4 labels that may hold at once"):
            self.read([[3]], kind)

    @pytest.mark.parametrize("labels", [[[0, 1]] * 2, ["[0, 1]"] * 2])
    def test_lists_of_0_and_1_are_class_numbers_where_the_others_were(self, labels):
        kind = read_labels(rows([[0], [0, 1]]), "training")[1]
        assert self.read(labels, kind) == [[1, 1], [1, 1]]
        assert self.read([[0], [1]], kind) == [[1, 0], [0, 1]]
        assert self.read([[0.0, 1.0]] * 2, kind) == [[0, 1], [0, 1]], "no class number has a point"
        assert self.read([[False, True]] * 2, kind) == [[0, 1], [0, 1]]
        # of three labels a list of two says which
        assert self.read(labels, LabelKind(MULTI_LABEL, 3)) == [[1, 1, 0], [1, 1, 0]]
        with pytest.raises(ValueError, match="2 labels that may hold at once, and the model has 3"):
            self.read([[True, False]], LabelKind(MULTI_LABEL, 3))

    @pytest.mark.parametrize(
        ("labels", "is_told"), [([[0, 1]] * 2, True), ([[0, 1], [1, 0]], False), ([[0.0, 1.0]] * 2, False)]
    )
    def test_lists_that_may_be_class_numbers_are_told(self, labels, is_told, caplog):
        assert self.read(labels, LabelKind(MULTI_LABEL, 2)) == labels
        assert ("lists such as [0, 1] alone, read as a 0 or 1 for each of 2 labels" in caplog.text) == is_told

    def test_class_numbers_are_no_numbers_to_predict(self):
        with pytest.raises(ValueError, match="no labels of regression"):
            read_labels(rows([[0], [1, 2]]), "training", problem_type=REGRESSION)

    def test_whole_numbers_for_a_regression(self):
        assert self.read([1, 5], LabelKind(REGRESSION, 1)) == [1.0, 5.0]
        with pytest.raises(ValueError, match="no labels of regression"):
            self.read(["a", "b"], LabelKind(REGRESSION, 1))


@pytest.mark.parametrize(
    ("declared", "outputs", "labels", "expected"),
    [
        (None, 3, [0, 2], LabelKind(SINGLE_LABEL, 3)),
        (None, 3, [[0, 1, 1]] * 2, LabelKind(MULTI_LABEL, 3)),
        (None, 1, [3, 4], LabelKind(REGRESSION, 1)),
        (MULTI_LABEL, 2, [[0, 1]] * 2, LabelKind(MULTI_LABEL, 2)),
    ],
)
def test_what_a_model_predicts(declared, outputs, labels, expected):
    id2label = {place: f"LABEL_{place}" for place in range(outputs)}
    config = SimpleNamespace(problem_type=declared, num_labels=outputs, id2label=id2label)
    assert model_labels(config, rows(labels), "evaluation") == expected
    if outputs > 1:
        config.id2label = dict(enumerate("xyz"[:outputs]))
        assert model_labels(config, rows(labels), "evaluation").class_names == tuple("xyz"[:outputs])
