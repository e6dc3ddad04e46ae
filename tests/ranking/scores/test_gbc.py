import math

import pytest
import torch
from sklearn.decomposition import PCA

from hf_transfer.ranking import GBC, gbc


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
