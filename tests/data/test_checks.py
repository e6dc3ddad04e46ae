from types import SimpleNamespace

import numpy as np
import pytest
from datasets import ClassLabel, Dataset

from hf_transfer.data.checks import (
    check_class_labels,
    check_domain_sizes,
    check_labels,
    check_not_empty,
    check_rows_of_domains,
    check_two_domains,
    column_values,
    label_column,
    label_numbers,
)
from hf_transfer.few_shot.maml import MAML
from hf_transfer.training.transfer_model import make_objectives


@pytest.fixture
def rows() -> Dataset:
    columns = {"text": ["a", "b", "c"], "label": [0, 2, -100]}
    return Dataset.from_dict(columns).cast_column("label", ClassLabel(names=["x", "y", "z"]))


@pytest.mark.parametrize("form", [None, "numpy", "torch", "transform"])
def test_a_column_whatever_the_format(rows, form):
    def fail(batch):
        raise AssertionError("the transform reads every column")

    rows = rows.with_transform(fail) if form == "transform" else rows.with_format(form)
    values = column_values(rows, "label")
    assert isinstance(values, np.ndarray) and values.tolist() == [0, 2, -100]


def test_columns_of_lists_and_floats():
    rows = Dataset.from_dict({"labels": [[1.0, 0.0], [0.5, 2.0]], "domain": [0.0, 1.0]})
    assert column_values(rows, "labels").tolist() == [[1.0, 0.0], [0.5, 2.0]]
    assert column_values(rows, "domain").dtype.kind == "f"


@pytest.mark.parametrize("name", ["labels", "label", "label_ids"])
def test_the_label_column_is_found(rows, name):
    assert label_column(rows if name == "label" else rows.rename_column("label", name), "training") == name


def test_without_a_label_column_the_columns_and_the_way_out_are_named(rows):
    with pytest.raises(ValueError) as error:
        label_column(rows.rename_column("label", "mood"), "training")
    message = str(error.value)
    assert "the training dataset has no label column" in message
    assert "['text', 'mood']" in message
    assert 'dataset.rename_column("your_column", "labels")' in message
    assert "\n" not in message


def test_labels_in_range_and_unknown_labels_pass(rows):
    check_class_labels(rows, "label", 3, "training")
    check_class_labels(Dataset.from_dict({"labels": [True, False]}), "labels", 2, "training")


def test_labels_outside_the_classes_are_named_with_the_way_out(rows):
    with pytest.raises(ValueError, match=r"outside 0\.\.1: \[2\]\. .* load it with num_labels=3"):
        check_class_labels(rows, "label", 2, "training")
    negative = Dataset.from_dict({"labels": [-1, 0]})
    with pytest.raises(ValueError, match=r"outside 0\.\.1: \[-1\]"):
        check_class_labels(negative, "labels", 2, "training")


@pytest.mark.parametrize("labels", [["x", "y"], [0.5, 1.0]])
def test_labels_that_are_no_class_numbers_are_refused(labels):
    rows = Dataset.from_dict({"labels": labels})
    with pytest.raises(
        ValueError, match=r'should hold class numbers, got .*: use dataset\.class_encode_column\("labels"\)'
    ):
        check_class_labels(rows, "labels", 2, "training")


def test_an_empty_dataset_is_refused(rows):
    check_not_empty(rows, "training")
    with pytest.raises(ValueError, match="the evaluation dataset is empty: check the split name"):
        check_not_empty(rows.select([]), "evaluation")


@pytest.mark.parametrize("domains", [[0, 1, 0], np.array([1, 0]), [0.0, 1.0]])
def test_both_domains_pass(domains):
    check_two_domains(domains)


@pytest.mark.parametrize("domains", [[0, 0], [1], [0, 1, 2], [0.0, 0.5, 1.0], []])
def test_other_domains_are_refused(domains):
    with pytest.raises(ValueError, match=r"should hold both 0 \(source\) and 1 \(target\), got only"):
        check_two_domains(domains)


def test_a_domain_smaller_than_half_a_batch():
    domains = np.array([0] * 9 + [1] * 4)
    check_domain_sizes(domains, 4)
    with pytest.raises(ValueError, match=r"the target has 4 rows and each batch takes 5 of it.* at most 8\."):
        check_domain_sizes(domains, 5)
    with pytest.raises(ValueError, match="the source has 9 rows and each batch takes 16"):
        check_domain_sizes(domains, 16)


@pytest.mark.parametrize("name", ["coral", "dan", "jan", "domain_coral", "irm"])
def test_a_statistic_of_one_row_a_domain_is_refused(name):
    objectives = make_objectives({name: {}})
    dataset = Dataset.from_dict({"domain": [0, 1, 0, 1]})
    args = SimpleNamespace(train_sampling_strategy="random", train_batch_size=2, world_size=1)
    with pytest.raises(ValueError, match=f"`{name}` needs at least 2 rows of each.*to at least 4"):
        check_rows_of_domains(objectives, dataset, args)
    check_rows_of_domains(objectives, dataset, SimpleNamespace(**{**vars(args), "train_batch_size": 4}))
    check_rows_of_domains(objectives, dataset, SimpleNamespace(**{**vars(args), "world_size": 2}))
    check_rows_of_domains(make_objectives({"dann": {}}), dataset, args)


def labelled(values) -> Dataset:
    return Dataset.from_dict({"labels": values})


@pytest.mark.parametrize(
    "problem_type, values, message",
    [
        ("multi_label_classification", [[0, 1], [0, 2]], r"outside 0\.\.1 .*1 rows, the first is row 1"),
        ("multi_label_classification", [[0, 1], [-100, 1]], "some are -100: 1 rows, the first is row 1"),
        ("regression", [0.5, float("nan")], "not finite: 1 rows, the first is row 1"),
        ("single_label_classification", [0, 2], r"labels outside 0\.\.1"),
    ],
)
def test_values_that_are_no_labels_of_the_problem(problem_type, values, message):
    with pytest.raises(ValueError, match=message):
        check_labels(labelled(values), "labels", problem_type, 2, "training")


def test_a_number_that_means_no_label_is_told(caplog):
    check_labels(labelled([[0, 1], [-100, -100]]), "labels", "multi_label_classification", 2, "training")
    assert not caplog.records
    check_labels(labelled([0.5, -100.0]), "labels", "regression", 1, "training")
    assert "1 of 2 rows have the number -100, which means no label" in caplog.text


def test_rows_with_different_numbers_of_labels():
    with pytest.raises(ValueError, match="every row should hold as many labels"):
        label_numbers(labelled([[0, 1], [1]]), "labels", "training")


def test_an_episode_is_of_one_environment_however_many_there_are():
    dataset = Dataset.from_dict({"domain": list(range(30))})
    objectives = {"maml": MAML(shots=2, queries=2, episodes_per_batch=1, groups="environments")}
    args = SimpleNamespace(train_batch_size=4, world_size=1, train_sampling_strategy="random")
    check_rows_of_domains(objectives, dataset, args)
