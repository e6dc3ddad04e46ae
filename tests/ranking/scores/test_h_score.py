import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.datasets import load_iris

from hf_transfer.ranking import HScore, ShrunkHScore, h_score


def make_data(rows=300, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (rows,), generator=generator)
    features = torch.randn(rows, size, generator=generator, dtype=torch.float64) + 3
    features[:, 0] += labels
    return features, labels


def conditional_means(features, labels):
    means = np.zeros_like(features)
    for label in np.unique(labels):
        means[labels == label] = features[labels == label].mean(axis=0)
    return means


def h_score_by_definition(features, labels):
    covariance = np.cov(features, rowvar=False)
    return np.trace(np.linalg.pinv(covariance) @ np.cov(conditional_means(features, labels), rowvar=False))


def shrunk_by_definition(features, labels):
    amount = ledoit_wolf_shrinkage(features)
    sample = np.cov(features, rowvar=False, bias=True)
    covariance = (1 - amount) * sample + amount * np.trace(sample) / len(sample) * np.eye(len(sample))
    between = np.cov(conditional_means(features, labels), rowvar=False)
    return np.trace(np.linalg.pinv(covariance) @ ((1 - amount) * between))


def test_equals_the_definition():
    features, labels = make_data()
    assert h_score(features, labels) == pytest.approx(h_score_by_definition(features.numpy(), labels.numpy()))
    assert h_score(features, labels, True) == pytest.approx(shrunk_by_definition(features.numpy(), labels.numpy()))


def test_fewer_rows_than_dimensions():
    features, labels = make_data(rows=20, size=30)
    assert h_score(features, labels, True) == pytest.approx(shrunk_by_definition(features.numpy(), labels.numpy()))


@pytest.mark.parametrize("kind", [HScore, ShrunkHScore])
def test_more_dimensions_than_are_multiplied_at_once(kind):
    """The lower triangle of F^T F is filled in blocks of 96 columns."""
    features, labels = make_data(rows=300, size=130)
    definition = shrunk_by_definition if kind is ShrunkHScore else h_score_by_definition
    score = kind()
    score.update(features, labels)
    assert score.compute().value == pytest.approx(definition(features.numpy(), labels.numpy()))


def test_the_shrinkage_is_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(12) % 2
    # these few rows of noise are shrunk all the way, spread along one direction hardly
    noise, one = torch.randn(12, 3, generator=generator.manual_seed(1)), torch.randn(12, 1, generator=generator)
    along = one @ torch.ones(1, 4) + 0.01 * torch.randn(12, 4, generator=generator)
    for features, low, high in ((noise, 1, 1), (along, 0, 0.5), (noise * 1e-3, 1, 1), (along * 0.01, 0, 0.5)):
        score = ShrunkHScore()
        score.update(features, labels)
        result = score.compute()
        amount = ledoit_wolf_shrinkage(features.double().numpy())
        assert result.diagnostics["shrinkage"] == pytest.approx(amount, abs=1e-9) and low <= amount <= high


def test_one_dimension_needs_no_shrinkage():
    features, labels = make_data(rows=30, size=1)
    between = conditional_means(features.numpy(), labels.numpy()).var(ddof=1)
    assert h_score(features, labels, True) == pytest.approx(between / features.numpy().var(), rel=1e-9)


def test_a_class_of_one_row_counts():
    features, labels = make_data(rows=40)
    labels[7] = 9
    assert h_score(features, labels) == pytest.approx(h_score_by_definition(features.numpy(), labels.numpy()))


def test_features_that_repeat_others_change_nothing():
    features, labels = make_data()
    more = torch.cat([features, features, features[:, :4] - features[:, 4:], torch.ones(300, 3)], dim=1)
    assert h_score(more, labels) == pytest.approx(h_score(features, labels), rel=1e-6)


def test_references():
    features, labels = (torch.tensor(part) for part in load_iris(return_X_y=True))
    assert h_score(features, labels) == pytest.approx(1.1918988, abs=1e-7)
    assert h_score(features, labels, shrinkage=True) == pytest.approx(1.1778425, abs=1e-7)


def test_features_that_are_the_classes_reach_the_bound():
    labels = torch.arange(90) % 3
    assert h_score(torch.nn.functional.one_hot(labels).double(), labels) == pytest.approx(2.0)


@pytest.mark.parametrize("kind", [HScore, ShrunkHScore])
def test_streams_and_merges(kind):
    features, labels = make_data()
    first, second, whole = kind(), kind(), kind()
    whole.update(features, labels)
    first.update(features[:100], labels[:100])
    for batch in torch.arange(100, 300).split(31):
        second.update(features[batch], labels[batch], batch)
    first.merge(second)
    assert first.compute().value == pytest.approx(whole.compute().value, abs=1e-10)
    assert first.compute().standard_error == pytest.approx(whole.compute().standard_error, rel=1e-6)


def test_values_are_refused():
    with pytest.raises(ValueError, match="compares classes"):
        HScore().update(torch.rand(3, 2), torch.rand(3))
