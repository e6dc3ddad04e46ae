import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hf_transfer.runs.arguments import DataArguments, ModelArguments
from hf_transfer.runs.data import load_data
from hf_transfer.runs.models import load_model
from hf_transfer.tasks import task_named
from tests import tiny
from tests.runs.folders import BOOKS, save_books, save_digits, save_image_folder


def counts(data) -> list[int | None]:
    return [None if part is None else len(part) for part in (data.train, data.target, data.test)]


def test_a_dataset_alone(here):
    data = load_data(DataArguments(dataset="digits"))
    assert counts(data) == [80, None, None]
    assert data.class_names == [str(digit) for digit in range(10)]


def test_rows_are_held_out_of_the_dataset_and_the_seed_decides(here):
    first, again, other = (load_data(DataArguments(dataset="digits", test_rows=20), seed) for seed in (0, 0, 1))
    assert counts(first) == [60, None, 20]
    assert first.test["label"][:] == again.test["label"][:] != other.test["label"][:]


def test_a_label_column_that_is_not_there_is_not_another(here):
    with pytest.raises(ValueError, match="the training dataset has no label column `lable`"):
        load_data(DataArguments(dataset="books.csv", label_column="lable"))


def test_rows_are_held_out_of_the_target(here):
    data = load_data(DataArguments(dataset="digits", target_dataset="more_digits", test_rows=20))
    assert counts(data) == [80, 30, 20]


def test_few_labels_a_class(here):
    data = load_data(DataArguments(dataset="digits", labels_per_class=2, test_rows=20))
    assert counts(data) == [20, None, 20]
    assert np.bincount(data.train["label"][:]).tolist() == [2] * 10


def test_few_labels_beside_a_test_set_and_a_target(here):
    arguments = DataArguments("digits", labels_per_class=2, target_dataset="more_digits", test_rows=10)
    assert counts(load_data(arguments)) == [20, 40, 10]
    arguments = DataArguments("digits", labels_per_class=2, test_dataset="more_digits", test_rows=10)
    assert counts(load_data(arguments)) == [20, None, 50]


@pytest.mark.parametrize("name", ["books.csv", "books.tsv", "books.json", "books.jsonl", "books.parquet"])
def test_a_file_is_a_test_set(tmp_path, name):
    path = str(save_books(tmp_path / name))
    data = load_data(DataArguments(dataset=path, test_dataset=path))
    assert counts(data) == [24, None, 24]
    assert data.class_names == ["0", "1", "2"]
    config = tiny.bert().config
    ready = data.prepared(config, tiny.tokenizer(), DataArguments(dataset=path))
    assert ready.train[0]["input_ids"] == tiny.tokenizer()(tiny.SENTENCES[0][0])["input_ids"]
    assert ready.test["labels"][:] == [book for _, book in tiny.SENTENCES]


def test_a_split_of_the_same_dataset_is_the_test_set(tmp_path):
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1]})
    DatasetDict(train=rows, test=rows.select([0]), validation=rows.select([1, 2])).save_to_disk(tmp_path)
    name = str(tmp_path)
    assert counts(load_data(DataArguments(dataset=name, test_split="validation"))) == [3, None, 2]
    assert counts(load_data(DataArguments(dataset=name, test_dataset=name))) == [3, None, 1]
    assert counts(load_data(DataArguments(dataset=name, split="validation"))) == [2, None, 1]
    assert counts(load_data(DataArguments(dataset=name))) == [3, None, 1]
    assert counts(load_data(DataArguments(dataset=name, target_dataset=name))) == [3, 3, 1]
    assert counts(load_data(DataArguments(dataset=name, test_rows=0))) == [3, None, None]
    with pytest.raises(ValueError, match="has no split `tset`, accepted"):
        load_data(DataArguments(dataset=name, test_split="tset"))


def test_no_split_is_guessed(tmp_path):
    rows = Dataset.from_dict({"text": ["a"], "label": [0]})
    DatasetDict(train=rows, validation=rows).save_to_disk(tmp_path)
    with pytest.raises(ValueError, match=r"has no split `test`, accepted: \['train', 'validation'\]"):
        load_data(DataArguments(dataset=str(tmp_path), test_dataset=str(tmp_path)))


def test_words_are_classes(tmp_path):
    path = str(save_books(tmp_path / "books.csv", words=True))
    data = load_data(DataArguments(dataset=path, test_dataset=path))
    assert data.class_names == sorted(BOOKS)
    expected = [sorted(BOOKS).index(BOOKS[book]) for _, book in tiny.SENTENCES]
    assert data.train["label"][:] == data.test["label"][:] == expected


def test_a_test_folder_without_every_class_is_numbered_as_the_training_folder(tmp_path):
    train = save_image_folder(tmp_path / "train", range(20))
    test = save_image_folder(tmp_path / "test", range(1, 10))
    assert sorted(item.name for item in test.iterdir()) == [str(digit) for digit in range(1, 10)]
    data = load_data(DataArguments(dataset=str(train), test_dataset=str(test)))
    assert sorted(data.test["label"][:]) == list(range(1, 10))


def test_a_test_class_that_was_not_trained_is_refused(tmp_path):
    train = save_image_folder(tmp_path / "train", range(5))
    test = save_image_folder(tmp_path / "test", range(10))
    with pytest.raises(ValueError, match=r"the test dataset has 10 classes.*none of the 5.*5, 6, 7, 8, 9"):
        load_data(DataArguments(dataset=str(train), test_dataset=str(test)))


def test_an_image_folder_with_splits(tmp_path):
    save_image_folder(tmp_path / "data" / "train", range(20))
    save_image_folder(tmp_path / "data" / "test", range(20, 30))
    data = load_data(DataArguments(dataset=str(tmp_path / "data"), test_split="test"))
    assert counts(data) == [20, None, 10]
    ready = data.prepared(tiny.vit().config, None, DataArguments(dataset="any"))
    assert ready.test[0]["pixel_values"].shape == (1, 14, 14)


def test_labels_that_are_no_classes_have_no_names(tmp_path):
    Dataset.from_dict({"text": ["a", "b"], "label": [0.5, 1.5]}).to_json(tmp_path / "rows.json")
    assert load_data(DataArguments(dataset=str(tmp_path / "rows.json"))).class_names is None


def test_the_target_has_options_of_its_own():
    arguments = DataArguments(
        dataset="optical_digits",
        dataset_options={"known_digits": 8, "keep_unknown": False},
        target_dataset="optical_digits",
        target_options={"known_digits": 8},
        test_rows=100,
    )
    data = load_data(arguments)
    assert data.class_names == [*"01234567", "unknown"] and data.test.features == data.train.features
    assert (max(data.train["label"]), max(data.target["label"]), max(data.test["label"])) == (7, 8, 8)
    assert data.outputs is None


def test_numbers_to_predict_are_counted(tmp_path):
    for label, outputs in ((0.5, 1), ([0.5, 1.5, 2.5], 3)):
        Dataset.from_dict({"text": ["a", "b"], "label": [label, label]}).save_to_disk(tmp_path / str(outputs))
        data = load_data(DataArguments(dataset=str(tmp_path / str(outputs))))
        assert data.outputs == outputs and data.class_names is None


def test_rows_without_labels_have_no_classes(tmp_path):
    Dataset.from_dict({"text": ["a"], "mood": [1]}).to_json(tmp_path / "rows.json")
    data = load_data(DataArguments(dataset=str(tmp_path / "rows.json")))
    with pytest.raises(ValueError, match="the training dataset has no label column"):
        data.class_names  # noqa: B018


def test_a_dataset_without_rows_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n")
    with pytest.raises(ValueError, match=r"cannot read `.*rows\.csv`"):
        load_data(DataArguments(dataset=str(tmp_path / "rows.csv")))


def test_more_test_rows_than_there_are(here):
    with pytest.raises(ValueError, match="`test_rows` should be less than the 80 rows"):
        load_data(DataArguments(dataset="digits", test_rows=100))


def test_missing_data_is_named(here):
    with pytest.raises(ValueError, match=r"cannot load the dataset `nowhere`: it is not a bundled name"):
        load_data(DataArguments(dataset="nowhere"))
    (here / "empty").mkdir()
    with pytest.raises((ValueError, OSError), match=r"empty.* doesn't contain any data files"):
        load_data(DataArguments(dataset="empty"))


@pytest.mark.parametrize("name", ["damaged.csv", "damaged.json", "damaged.parquet"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_text('{"text": ["a"\n1,2,"3\n')
    with pytest.raises(ValueError, match=f"cannot read `.*{name}`"):
        load_data(DataArguments(dataset=str(tmp_path / name)))


def test_the_digits_of_a_saved_folder_are_classes(tmp_path):
    rows = load_data(DataArguments(dataset=str(save_digits(tmp_path / "few", 0, 12))))
    assert isinstance(rows.train.features["label"], ClassLabel)


def test_a_test_split_whose_labels_are_kept_back_is_not_evaluated_on(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    hidden = Dataset.from_dict({"text": ["c"], "label": [-1]}, features=features)
    DatasetDict(train=rows, test=hidden).save_to_disk(tmp_path)
    assert counts(load_data(DataArguments(dataset=str(tmp_path)))) == [2, None, None]


class TestLabels:
    def load(self, tmp_path, rows, **arguments):
        Dataset.from_dict(rows).save_to_disk(tmp_path / "rows")
        return load_data(DataArguments(dataset=str(tmp_path / "rows"), **arguments))

    def test_stars_are_five_classes(self, tmp_path):
        data = self.load(tmp_path, {"text": list("abcdef"), "label": [1, 5, 2, 4, 3, 5]}, test_rows=2)
        assert data.class_names == list("12345") and data.outputs is None
        assert sorted([*data.train["label"], *data.test["label"]]) == [0, 1, 2, 3, 4, 4]

    def test_several_labels_are_no_regression(self, tmp_path):
        for name, one in (("ints", 1), ("floats", 1.0)):
            data = self.load(tmp_path / name, {"text": ["a", "b"], "label": [[one, one * 0, one], [one] * 3]})
            assert (data.kind.problem_type, data.outputs) == ("multi_label_classification", 3)

    def test_another_label_column_in_every_role(self, tmp_path):
        rows = {"text": list("abcd"), "label": ["x"] * 4, "stars": [1, 2, 1, 2]}
        target = str(tmp_path / "rows")
        data = self.load(tmp_path, rows, label_column="stars", target_dataset=target, test_rows=2)
        assert data.class_names == ["1", "2"]
        for part in (data.train, data.target, data.test):
            assert sorted(part.column_names) == ["labels", "text"]
        assert set(data.test["labels"]) <= {0, 1}

    def test_whole_numbers_to_predict(self, tmp_path):
        data = self.load(tmp_path, {"text": list("abc"), "label": [1, 2, 9]}, problem_type="regression")
        assert (data.class_names, data.outputs) == (None, 1) and data.train["label"][:] == [1.0, 2.0, 9.0]

    def test_one_class_is_none(self, tmp_path):
        for label in (0, "only"):
            data = self.load(tmp_path / str(label), {"text": ["a", "b"], "label": [label, label]})
            with pytest.raises(ValueError, match="should number at least two classes"):
                assert data.class_names is None

    def test_at_most_so_many_rows(self, tmp_path):
        rows = {"text": [str(place) for place in range(30)], "label": [0, 1, 2] * 10}
        data = self.load(tmp_path, rows, max_samples=4, target_dataset=str(tmp_path / "rows"))
        assert counts(data) == [4, 4, None] and data.class_names == ["0", "1", "2"]
        assert data.train["text"][:] == sorted(data.train["text"][:], key=int)

    def test_labels_of_pretraining_are_not_read(self, tmp_path):
        Dataset.from_dict({"text": ["a", "b"], "label": [0, None]}).save_to_disk(tmp_path)
        assert counts(load_data(DataArguments(dataset=str(tmp_path)), reads_labels=False)) == [2, None, None]
        with pytest.raises(ValueError, match="column `label` of the training dataset has no label .* in row 1 "):
            load_data(DataArguments(dataset=str(tmp_path)))


@pytest.mark.parametrize("kind", ["multi_label_classification", "single_label_classification", "regression"])
def test_a_checkpoint_of_another_problem_type_is_told_the_one_of_the_data(tmp_path, kind):
    tiny.bert(num_labels=2, problem_type=kind).save_pretrained(tmp_path)
    arguments = ModelArguments(model=str(tmp_path), task="text-classification")
    found = load_model(arguments, outputs=3, problem_type="multi_label_classification").config
    assert (found.problem_type, found.num_labels) == ("multi_label_classification", 3)
    found = load_model(arguments, ["a", "b"], problem_type="single_label_classification").config
    assert (found.problem_type, found.num_labels) == ("single_label_classification", 2)


@pytest.mark.parametrize("role", ["test", "target"])
def test_another_label_does_not_stand_in_for_the_one_asked_for(role, tmp_path):
    rows = [f"text {number}" for number in range(6)]
    Dataset.from_dict({"text": rows, "topic": [0, 1] * 3, "label": [1, 0] * 3}).to_csv(tmp_path / "train.csv")
    Dataset.from_dict({"text": rows, "label": [1, 0] * 3}).to_csv(tmp_path / "other.csv")
    asked = {"label_column": "topic", f"{role}_dataset": str(tmp_path / "other.csv")}
    asked |= {"test_rows": 2} if role == "target" else {}
    with pytest.raises(ValueError, match=f"the {role} dataset has no label column `topic`, and its column `label` is"):
        load_data(DataArguments(dataset=str(tmp_path / "train.csv"), **asked), task=task_named("text-classification"))
    Dataset.from_dict({"text": rows, "labels": [0, 1] * 3}).to_csv(tmp_path / "other.csv")
    found = load_data(
        DataArguments(dataset=str(tmp_path / "train.csv"), **asked), task=task_named("text-classification")
    )
    assert [found.test["labels"][place] for place in range(len(found.test))] == [
        [0, 1][place % 2] for place in (found.held_out or range(6))
    ]


def test_rows_without_a_label_stay_so_in_the_test_set(tmp_path):
    rows = [f"text {number}" for number in range(4)]
    Dataset.from_dict({"text": rows, "label": [3, 5, 3, 5]}).to_csv(tmp_path / "train.csv")
    Dataset.from_dict({"text": rows, "label": [5, -100, 3, -100]}).to_csv(tmp_path / "test.csv")
    asked = DataArguments(dataset=str(tmp_path / "train.csv"), test_dataset=str(tmp_path / "test.csv"))
    assert list(load_data(asked, task=task_named("text-classification")).test["label"]) == [
        2,
        -100,
        0,
        -100,
    ]  # of 3, 4 and 5
