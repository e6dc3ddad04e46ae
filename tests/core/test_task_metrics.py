"""The metrics of each problem type against their formulas."""

import numpy as np
import pytest

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


@pytest.mark.parametrize("problem_type", METRICS)
def test_the_metrics_are_those_announced(problem_type):
    labels = np.array([0, 1]) if problem_type == SINGLE_LABEL else np.array([[0, 1], [1, 1]])
    assert tuple(task_metrics(np.array([[1.0, 0.0], [0.5, 2.0]]), labels, problem_type)) == METRICS[problem_type]
    assert task_metrics(np.zeros((2, 2)), np.full_like(labels, -100), problem_type) == {}
