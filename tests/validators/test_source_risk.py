import math

import pytest
import torch

from hf_transfer.validators.source_risk import source_risk


def test_classes_against_the_formula(evaluation_set):
    features, logits, domain, labels = evaluation_set
    labels[3] = -100
    rows = [place for place in range(24) if place != 3]
    expected = -sum(
        math.log(sum(math.exp(z) for z in logits[place].tolist())) - logits[place, labels[place]].item()
        for place in rows
    ) / len(rows)
    assert source_risk(features, logits, domain, labels) == pytest.approx(expected, abs=1e-6)
    assert source_risk(features, logits, domain, torch.where(domain == 0, labels, -100)) == pytest.approx(expected)


def test_numbers_against_the_formula():
    answers, domain = torch.tensor([[1.0, 2.0], [0.0, 0.0], [5.0, 5.0], [9.0, 9.0]]), torch.tensor([0, 0, 0, 1])
    labels = torch.tensor([[0.0, 2.0], [1.0, 3.0], [-100.0, -100.0], [0.0, 0.0]])
    assert source_risk(torch.zeros(4, 1), answers, domain, labels) == pytest.approx(-((1 + 0) / 2 + (1 + 9) / 2) / 2)
    one = source_risk(torch.zeros(4, 1), answers[:, :1], domain, labels[:, 0])
    assert one == pytest.approx(-((1 - 0) ** 2 + (0 - 1) ** 2) / 2)


def test_no_labels_raise(evaluation_set):
    features, logits, domain, _ = evaluation_set
    with pytest.raises(ValueError, match="`labels` is None"):
        source_risk(features, logits, domain)
