"""The metrics of each problem type against their formulas."""

import numpy as np
import pytest
from sklearn.metrics import mean_squared_error, r2_score

from hf_transfer.core.task_loss import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from hf_transfer.core.task_metrics import METRICS, task_metrics


def test_classes():
    logits = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    found = task_metrics(logits, np.array([0, 0, 1, -100]), SINGLE_LABEL)
    # class 0: precision 1, recall 1/2; class 1: precision 1/2, recall 1
    assert found == {"accuracy": pytest.approx(2 / 3), "macro_f1": pytest.approx(2 / 3)}


@pytest.mark.parametrize("dtype", [np.int64, np.float32, bool])
def test_several_labels(dtype):
    logits = np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    found = task_metrics(logits, np.array([[1, 0], [0, 1], [0, 1]]).astype(dtype), MULTI_LABEL)
    # right positives 2, false ones 1, missed 1; each column has an F1 of 2/3
    expected = {"exact_match": 1 / 3, "micro_f1": 2 / 3, "macro_f1": 2 / 3}
    assert found == {name: pytest.approx(value) for name, value in expected.items()}


def test_one_yes_or_no_label():
    found = task_metrics(np.array([[1.0], [1.0], [-1.0]]), np.array([1, 0, 0]), MULTI_LABEL)
    assert found["exact_match"] == pytest.approx(2 / 3) and found["macro_f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_numbers(dtype):
    found = task_metrics(np.array([[1.0], [2.0], [4.0], [9.0]]), np.array([1, 3, 5, -100]).astype(dtype), REGRESSION)
    expected = {"mean_squared_error": 2 / 3, "mean_absolute_error": 2 / 3, "r_squared": 1 - 2 / 8}
    assert found == {name: pytest.approx(value) for name, value in expected.items()}


def test_r_squared_of_several_columns_pools_them():
    generator = np.random.default_rng(0)
    labels = generator.normal([0.0, 1000.0], [1.0, 3.0], (20, 2))
    outputs = labels + generator.normal(0, 1, (20, 2))
    found = task_metrics(outputs, labels, REGRESSION)
    expected = r2_score(labels, outputs, multioutput="variance_weighted")
    assert found["r_squared"] == pytest.approx(expected, rel=1e-9)
    assert found["mean_squared_error"] == pytest.approx(mean_squared_error(labels, outputs))


def test_r_squared_of_known_predictions():
    labels = np.array([1.0, 2.0, 6.0])

    def r_squared(*outputs):
        return task_metrics(np.array(outputs)[:, None], labels, REGRESSION)["r_squared"]

    assert r_squared(1, 2, 6) == 1.0 and r_squared(3, 3, 3) == 0.0
    # each twice as far off as the mean, in the other order; and predictions that do not vary
    assert r_squared(5, 4, 0) == pytest.approx(-3.0) and r_squared(0, 0, 0) == pytest.approx(1 - 41 / 14)
    assert task_metrics(np.ones((3, 1)), np.full(3, 2.0), REGRESSION)["r_squared"] == 0.0


def test_numbers_in_half_precision_do_not_overflow():
    found = task_metrics(np.array([[300.0], [100.0]], np.float16), np.array([0.0, 400.0], np.float16), REGRESSION)
    assert found == {"mean_squared_error": 90_000, "mean_absolute_error": 300, "r_squared": 1 - 180_000 / 80_000}


@pytest.mark.parametrize("problem_type", METRICS)
def test_the_metrics_are_those_announced(problem_type):
    labels = np.array([0, 1]) if problem_type == SINGLE_LABEL else np.array([[0, 1], [1, 1]])
    assert tuple(task_metrics(np.array([[1.0, 0.0], [0.5, 2.0]]), labels, problem_type)) == METRICS[problem_type]
    assert task_metrics(np.zeros((2, 2)), np.full_like(labels, -100), problem_type) == {}
