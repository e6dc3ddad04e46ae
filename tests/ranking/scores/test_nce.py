import math

import pytest
import torch
from sklearn.datasets import load_iris

from hf_transfer.ranking import NCE, nce
from hf_transfer.ranking.scores.nce import negative_conditional_entropy


def make_data(rows=500, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 6, generator=generator).softmax(1), torch.randint(0, 4, (rows,), generator=generator)


def nce_by_counting(sources, labels):
    total = 0.0
    for source, label in zip(sources.tolist(), labels.tolist()):
        same = [other for place, other in enumerate(labels.tolist()) if sources[place] == source]
        total += math.log(same.count(label) / len(same))
    return total / len(labels)


def test_equals_counting():
    probabilities, labels = make_data(200)
    score = NCE()
    score.update(probabilities, labels)
    expected = nce_by_counting(probabilities.argmax(1), labels)
    assert score.compute().value == pytest.approx(expected, abs=1e-12)
    assert nce(probabilities.argmax(1), labels) == pytest.approx(expected, abs=1e-12)


def test_reference_and_known_cases():
    data = load_iris()
    assert nce(torch.tensor(data.data).argmax(1), torch.tensor(data.target)) == pytest.approx(-1.0986123, abs=1e-7)
    labels = torch.arange(12) % 3
    assert nce(labels, labels) == 0.0


def test_a_source_class_that_is_never_predicted_changes_nothing():
    joint = torch.tensor([[3.0, 1.0], [0.0, 0.0], [1.0, 5.0]]).double()
    expected = (3 * math.log(3 / 4) + math.log(1 / 4) + math.log(1 / 6) + 5 * math.log(5 / 6)) / 10
    assert negative_conditional_entropy(joint) == pytest.approx(expected, abs=1e-12)
    assert nce(torch.tensor([0, 2, 0, 2]), torch.tensor([0, 1, 0, 1])) == 0.0


def test_the_source_classes_that_are_used():
    score = NCE()
    score.update(torch.eye(4)[[0, 2, 2, 0, 3]], torch.tensor([0, 1, 1, 0, 1]))
    assert score.compute().diagnostics == {"rows": 5, "source_classes_used": 3}


def test_streams_and_merges():
    probabilities, labels = make_data()
    first, second = NCE(), NCE()
    first.update(probabilities[:300], labels[:300])
    second.update(probabilities[300:], labels[300:], torch.arange(300, len(labels)))
    first.merge(second)
    assert first.compute().value == pytest.approx(nce(probabilities.argmax(1), labels), abs=1e-12)


def test_values_are_refused():
    with pytest.raises(ValueError, match="compares classes"):
        NCE().update(torch.rand(3, 2), torch.rand(3))
