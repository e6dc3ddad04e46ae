import numpy as np
import pytest
import torch

from hf_transfer.ranking import TransRate, trans_rate


def make_data(rows, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (rows,), generator=generator)
    return torch.randn(rows, size, generator=generator) + labels[:, None], labels


def rate_by_definition(features, eps):
    rows, size = features.shape
    return 0.5 * np.linalg.slogdet(np.eye(size) + features.T @ features / (rows * eps))[1]


def trans_rate_by_definition(features, labels, eps):
    features = features - features.mean(axis=0)
    classes = np.unique(labels)
    return rate_by_definition(features, eps) - np.mean(
        [rate_by_definition(features[labels == label], eps) for label in classes]
    )


@pytest.mark.parametrize(("rows", "size"), [(200, 5), (30, 40)])
def test_equals_the_formula(rows, size):
    features, labels = make_data(rows, size)
    expected = trans_rate_by_definition(features.double().numpy(), labels.numpy(), 1e-4)
    assert trans_rate(features, labels) == pytest.approx(expected)
    score = TransRate()
    score.update(features, labels)
    assert score.compute().value == pytest.approx(expected)


def test_low_precision_is_summed_in_float64():
    features, labels = make_data(40, 5)
    features = (features + 3).bfloat16()
    expected = trans_rate_by_definition(features.double().numpy(), labels.numpy(), 1e-4)
    assert trans_rate(features, labels) == pytest.approx(expected, rel=1e-9)


def test_the_distortion_of_the_code():
    features, labels = make_data(40, 5)
    score = TransRate(eps=0.5)
    score.update(features, labels)
    expected = trans_rate_by_definition(features.double().numpy(), labels.numpy(), 0.5)
    assert score.compute().value == pytest.approx(expected)


def test_classes_that_say_nothing_score_near_zero():
    features = torch.cat([torch.eye(4)] * 50)
    labels = torch.arange(200) // 100
    assert trans_rate(features, labels) == pytest.approx(0.0, abs=1e-9)
    assert trans_rate(features, torch.arange(200) % 4) > 1


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="`eps`"):
        TransRate(eps=0)
    with pytest.raises(ValueError, match="compares classes"):
        TransRate().update(torch.rand(3, 2), torch.rand(3))
