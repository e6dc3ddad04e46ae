import math

import pytest
import torch
from sklearn.decomposition import PCA

from hf_transfer.ranking import GBC, gbc
from hf_transfer.ranking.scores.gbc import bhattacharyya


def make_data(rows=200, size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (rows,), generator=generator)
    return torch.randn(rows, size, generator=generator, dtype=torch.float64) + labels[:, None], labels


def gbc_by_loops(features, labels, shape):
    classes = sorted(set(labels.tolist()))
    means = {label: features[labels == label].mean(0) for label in classes}
    variances = {label: features[labels == label].var(0, correction=0) for label in classes}
    if shape != "diagonal":
        variances = {label: variance.mean().expand(len(variance)) for label, variance in variances.items()}
    total = 0.0
    for first in classes:
        for second in classes:
            if first == second:
                continue
            distance = 0.0
            for place in range(features.shape[1]):
                one, other = float(variances[first][place]), float(variances[second][place])
                middle = (one + other) / 2
                distance += float(means[first][place] - means[second][place]) ** 2 / middle / 8
                if shape != "released" or place == 0:
                    distance += 0.5 * math.log(middle / math.sqrt(one * other))
            total -= math.exp(-distance)
    return total


@pytest.mark.parametrize("shape", ["spherical", "diagonal", "released"])
def test_equals_the_formula(shape):
    features, labels = make_data()
    features[labels == 1] *= 3.0
    assert gbc(features, labels, None, shape) == pytest.approx(gbc_by_loops(features, labels, shape))


def test_principal_components_are_those_of_scikit_learn():
    features, labels = make_data(size=9)
    reduced = torch.tensor(PCA(n_components=3).fit_transform(features.numpy()))
    assert gbc(features, labels, 3, "diagonal") == pytest.approx(gbc_by_loops(reduced, labels, "diagonal"))


def test_as_many_components_as_dimensions_still_turn_the_axes():
    features, labels = make_data(size=3)
    reduced = torch.tensor(PCA().fit_transform(features.numpy()))
    expected = gbc_by_loops(reduced, labels, "diagonal")
    for components in (3, 64):
        assert gbc(features, labels, components, "diagonal") == pytest.approx(expected, rel=1e-9)
    assert gbc(features, labels, None, "diagonal") != pytest.approx(expected, rel=1e-3)


def test_the_defaults_are_64_components_and_one_variance_a_class():
    features, labels = make_data(size=70)
    reduced = torch.tensor(PCA(n_components=64).fit_transform(features.numpy()))
    assert gbc(features, labels) == pytest.approx(gbc_by_loops(reduced, labels, "spherical"), rel=1e-9)
    assert (GBC().components, GBC().shape) == (64, "spherical")


def test_low_precision_is_summed_in_float64():
    features, labels = make_data()
    features = features.bfloat16()
    expected = gbc_by_loops(features.double(), labels, "spherical")
    assert gbc(features, labels, None) == pytest.approx(expected, rel=1e-12)


def test_a_class_of_one_row_has_the_smallest_variance():
    # D_B of N(0, 1/4) and N(1, 1e-4), and of each with itself left out
    features, labels = torch.tensor([[-0.5], [0.5], [1.0]]), torch.tensor([0, 0, 1])
    middle = (0.25 + 1e-4) / 2
    distance = 1 / middle / 8 + 0.5 * math.log(middle / math.sqrt(0.25 * 1e-4))
    assert gbc(features, labels, None) == pytest.approx(-2 * math.exp(-distance))


def test_the_distance_is_that_of_gaussians_with_full_covariances():
    means, variances = torch.tensor([[0.0, 1.0], [2.0, 2.0]]), torch.tensor([[1.0, 2.0], [0.5, 3.0]])
    mean, variance = torch.tensor([1.0, -1.0]), torch.tensor([2.0, 0.25])
    found = bhattacharyya(means, variances, mean, variance)
    for index in range(2):
        one, other = torch.diag(variances[index]), torch.diag(variance)
        apart, middle = means[index] - mean, (one + other) / 2
        expected = apart @ torch.linalg.solve(middle, apart) / 8
        expected += torch.log(middle.det() / (one.det() * other.det()).sqrt()) / 2
        assert found[index].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("shape", ["spherical", "diagonal", "released"])
@pytest.mark.parametrize("components", [None, 1])
def test_options_reach_the_formula(shape, components):
    features, labels = make_data(rows=60, size=3)
    features[labels == 1] *= 3.0
    score = GBC(shape=shape, components=components)
    score.update(features, labels)
    points = features if components is None else torch.tensor(PCA(components).fit_transform(features.numpy()))
    assert score.compute().value == pytest.approx(gbc_by_loops(points, labels, shape), rel=1e-5)


def test_accumulates():
    features, labels = make_data()
    score = GBC(components=4)
    for batch in torch.arange(200).split(23):
        score.update(features[batch], labels[batch])
    assert score.compute().value == pytest.approx(gbc(features, labels, 4), rel=1e-5)


def test_known_cases():
    labels = torch.arange(100) % 2
    assert gbc(labels[:, None] * 1000.0 + torch.randn(100, 2), labels) == pytest.approx(0.0, abs=1e-12)
    assert gbc(torch.cat([torch.eye(2)] * 50), torch.arange(100) // 50) == pytest.approx(-2.0)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="`components`"):
        GBC(components=0)
    with pytest.raises(ValueError, match="`shape`"):
        GBC(shape="full")
    with pytest.raises(ValueError, match="`shape`"):
        gbc(*make_data(), None, "full")
