import math

import pytest
import torch

from hf_transfer.functional.environments import environment_means, row_risks


def test_means_of_the_environments_that_occur():
    values = torch.tensor([1.0, 2.0, 3.0, 6.0], requires_grad=True)
    present, means = environment_means(values, torch.tensor([2, 0, 2, 2]))
    assert present.tolist() == [0, 2]
    assert means.tolist() == pytest.approx([2.0, 10 / 3])
    means[1].backward()
    assert values.grad.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])


def test_risks_of_classes_and_of_numbers():
    logits = torch.tensor([[0.5, -1.0], [2.0, 0.0]])
    labels = torch.tensor([1, 0])
    expected = [-logits[0].log_softmax(0)[1].item(), -logits[1].log_softmax(0)[0].item()]
    assert row_risks(logits, labels).tolist() == pytest.approx(expected)
    assert row_risks(logits, torch.tensor([[0.0, 0.0], [2.0, 1.0]])).tolist() == pytest.approx([0.625, 0.5])
    assert row_risks(logits[:, :1], torch.tensor([0.0, 1.0])).tolist() == pytest.approx([0.25, 1.0])


def test_risks_of_several_labels_are_their_binary_cross_entropy():
    """0.693 each at logits of 0, where a squared error would say .5."""
    logits, labels = torch.zeros(2, 2), torch.tensor([[0, 1], [1, 1]])
    for form in (labels, labels.float()):
        assert row_risks(logits, form).tolist() == pytest.approx([math.log(2)] * 2)
    assert row_risks(logits, labels, "regression").tolist() == pytest.approx([0.5, 1.0])


def test_risks_of_whole_numbers_to_predict():
    assert row_risks(torch.tensor([[0.5], [2.0]]), torch.tensor([1, 4])).tolist() == pytest.approx([0.25, 4.0])
