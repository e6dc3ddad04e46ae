import pytest
import torch

from hf_transfer.validators.source_accuracy import source_accuracy


def test_it_counts_labelled_source_rows_only():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    domain, labels = torch.tensor([0, 0, 0, 0, 1]), torch.tensor([0, 1, 1, -100, 1])
    assert source_accuracy(torch.zeros(5, 1), logits, domain, labels) == pytest.approx(2 / 3)
    labels[4] = 0
    assert source_accuracy(torch.zeros(5, 1), logits, domain, labels) == pytest.approx(2 / 3)


def test_no_labels_raise(evaluation_set):
    features, logits, domain, _ = evaluation_set
    with pytest.raises(ValueError, match="`labels` is None"):
        source_accuracy(features, logits, domain)
    with pytest.raises(ValueError, match="the labels are numbers to predict"):
        source_accuracy(features, logits, domain, torch.zeros(40))
