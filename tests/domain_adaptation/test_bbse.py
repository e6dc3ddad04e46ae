"""Black-box shift estimation: shares that are known, a naive solution, and answers that tell nothing."""

import numpy as np
import pytest
import torch

from hf_transfer.domain_adaptation.bbse import as_shares, bbse_weights, confusion_of, separation

ANSWERS = torch.tensor([[0.8, 0.1, 0.2], [0.1, 0.7, 0.1], [0.1, 0.2, 0.7]], dtype=torch.float64)
"""P(predicted | label), labels in columns."""
SOURCE = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
TARGET = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)


def test_the_shares_are_exact_where_the_answers_are():
    weights = bbse_weights(ANSWERS * SOURCE * 1000, ANSWERS @ TARGET * 300)
    torch.testing.assert_close(weights, TARGET / SOURCE)


def test_the_confusion_counts_predictions_in_rows_and_labels_in_columns():
    generator = torch.Generator().manual_seed(0)
    predicted, labels = torch.randint(4, (2, 50), generator=generator)
    naive = np.zeros((4, 4))
    for answer, label in zip(predicted.tolist(), labels.tolist()):
        naive[answer, label] += 1
    assert confusion_of(predicted, labels, 4).numpy() == pytest.approx(naive)


def test_drawn_rows_against_the_naive_inverse():
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(SOURCE, 400, True, generator=generator)
    predicted = torch.stack([torch.multinomial(ANSWERS[:, label], 1, generator=generator)[0] for label in labels])
    counts = torch.tensor([120.0, 100.0, 180.0])
    confusion = confusion_of(predicted, labels, 3)
    naive = np.linalg.inv(confusion.numpy() / 400) @ (counts.numpy() / 400)
    assert bbse_weights(confusion, counts).tolist() == pytest.approx(naive.clip(min=0).tolist())


def test_a_weight_below_zero_is_zero():
    confusion = torch.tensor([[40.0, 10.0], [10.0, 40.0]])
    assert bbse_weights(confusion, torch.tensor([95.0, 5.0]))[1] == 0


@pytest.mark.parametrize(
    "confusion, message",
    [
        ([[30.0, 20.0], [0.0, 0.0]], r"the classes \[1\] are never predicted"),
        ([[10.0, 10.0], [15.0, 15.0]], "some mixture of them looks like another"),
        ([[30.0, 0.0], [20.0, 0.0]], r"the classes \[1\] have no held-out source rows"),
        ([[0.0, 0.0], [0.0, 0.0]], "`confusion` should count rows"),
        ([[-1.0, 2.0], [0.0, 4.0]], "`confusion` should count rows"),
        ([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], r"`confusion` should be \[2, 2\]"),
    ],
)
def test_answers_that_tell_nothing_are_refused(confusion, message):
    with pytest.raises(ValueError, match=message):
        bbse_weights(torch.tensor(confusion), torch.tensor([30.0, 20.0]))


def test_no_target_rows_are_refused():
    with pytest.raises(ValueError, match="`predictions` should count rows"):
        as_shares(torch.eye(2), torch.zeros(2))


def test_how_well_classes_are_told_apart():
    assert separation(torch.diag(torch.tensor([5.0, 2.0, 9.0]))) == pytest.approx(1)
    assert separation(torch.tensor([[3.0, 5.0], [3.0, 5.0]])) == pytest.approx(0, abs=1e-7)
    assert separation(torch.tensor([[3.0, 0.0], [0.0, 0.0]])) == pytest.approx(1), "a class without rows is left out"
