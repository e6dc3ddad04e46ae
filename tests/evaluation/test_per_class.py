import numpy as np
import pytest
from sklearn.metrics import classification_report

from hf_transfer.evaluation.per_class import class_figures

NAMES = ["a", "b", "c"]


def test_the_figures_are_those_of_scikit_learn_on_the_rows_with_a_label():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(40, 3)), generator.integers(0, 3, 40)
    labels[:5] = -100
    figures = class_figures(logits, labels, "single_label_classification", NAMES)
    report = classification_report(
        labels[5:], logits[5:].argmax(1), target_names=NAMES, output_dict=True, zero_division=0.0
    )
    for name in NAMES:
        expected = [report[name][key] for key in ("precision", "recall", "f1-score", "support")]
        assert list(figures[name].values()) == pytest.approx(expected)


def test_each_of_several_labels_has_its_own():
    logits = np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    labels = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    figures = class_figures(logits, labels, "multi_label_classification", ["x", "y"])
    assert figures["x"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "rows": 2}
    assert figures["y"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "rows": 2}


def test_numbers_and_rows_without_labels_have_none():
    assert class_figures(np.zeros((3, 1)), np.zeros(3), "regression", ["x"]) == {}
    assert class_figures(np.zeros((3, 2)), np.full(3, -100), "single_label_classification", ["x", "y"]) == {}
