"""Answers of question answering: hand cases of SQuAD's normalisation, and the best span against a plain search."""

import numpy as np
import pytest

from hf_transfer.evaluation.spans import (
    LONGEST_ANSWER,
    best_answers,
    best_span,
    exact_match,
    normalised,
    span_metrics,
    word_f1,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The  Lord, of a Host!", "lord of host"),
        ("an apple-pie", "applepie"),
        ("Theatre another", "theatre another"),
        ("the", ""),
        ("Äpfel A.D. 30", "äpfel ad 30"),
    ],
)
def test_normalisation(text, words):
    assert normalised(text) == words


@pytest.mark.parametrize(
    ("prediction", "answer", "exact", "f1"),
    [
        ("the Lord", "Lord.", 1.0, 1.0),
        ("Moses and Aaron", "Moses", 0.0, 0.5),
        ("to to to", "to be", 0.0, 0.4),
        ("", "", 1.0, 1.0),
        ("", "Moses", 0.0, 0.0),
        ("Aaron", "Moses", 0.0, 0.0),
    ],
)
def test_exact_match_and_f1(prediction, answer, exact, f1):
    assert exact_match(prediction, answer) == exact and word_f1(prediction, answer) == pytest.approx(f1)


def test_metrics_take_the_best_true_answer_and_count_rows_without_one():
    found = span_metrics(["Moses and Aaron", "", "Eve"], [["Moses", "Aaron and Moses"], [], []])
    assert found == pytest.approx({"f1": 2 / 3, "exact_match": 1 / 3, "has_answer_f1": 1.0, "no_answer_accuracy": 0.5})
    assert span_metrics(["Moses"], [["Moses"]]) == {"f1": 1.0, "exact_match": 1.0}
    assert span_metrics([], []) == {}


def test_the_best_span_is_that_of_a_plain_search():
    generator = np.random.default_rng(0)
    for length in (1, 5, LONGEST_ANSWER, 80):
        starts, ends = generator.normal(size=(2, length)) * 3
        inside = generator.random(length) < 0.8
        spans = [
            (starts[i] + ends[j], i, j)
            for i in range(length)
            for j in range(i, min(length, i + LONGEST_ANSWER))
            if inside[i] and inside[j]
        ]
        assert best_span(starts, ends, inside) == (pytest.approx(max(spans)[0]), *max(spans)[1:]) if spans else True
    assert best_span(starts, ends, np.zeros(80, dtype=bool)) is None


def test_an_answer_is_of_the_best_window_and_none_has_to_win_in_all_of_them():
    offsets = [[[-1, -1], [0, 3], [4, 7]], [[-1, -1], [4, 7], [8, 9]], [[-1, -1], [0, 3]]]
    outputs = np.full((3, 4, 2), -100.0)
    outputs[0, :3] = [[3, 3], [1, 0], [0, 1]]
    outputs[1, :3] = [[0, 0], [2, 0], [0, 2]]  # a better answer, and no answer is worse here
    outputs[2, :2] = [[1, 1], [0, 0]]
    found = best_answers(outputs, [0, 0, 1], offsets, [0, 0, 0], ["abc def g", "xyz"])
    assert [(one.text, one.start) for one in found] == [("def g", 4), ("", -1)]
    assert found[1].probability == pytest.approx((1 / (1 + np.exp(-1))) ** 2)
