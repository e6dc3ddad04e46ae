import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from hf_transfer.ranking import KNN
from hf_transfer.ranking.scores.knn import majority


def scored(features, labels, **options):
    score = KNN(**options)
    score.update(features, labels)
    return score.compute()


def test_accuracy_equals_scikit_learn():
    images, labels = load_digits(return_X_y=True)
    classifier = KNeighborsClassifier(n_neighbors=1, metric="cosine")
    expected = cross_val_score(classifier, images[:100], labels[:100], cv=LeaveOneOut()).mean()
    assert scored(torch.tensor(images[:100]), torch.tensor(labels[:100]), k=1).value == pytest.approx(expected)


def test_r2_equals_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    values = features[:, 0] + 0.1 * torch.randn(60, generator=generator, dtype=torch.float64)
    predictions = []
    for row in range(60):
        others = [place for place in range(60) if place != row]
        model = KNeighborsRegressor(n_neighbors=5, metric="cosine").fit(features[others], values[others])
        predictions.append(model.predict(features[row : row + 1])[0])
    residual = (values - torch.tensor(predictions)).square().sum() / (values - values.mean()).square().sum()
    assert scored(features, values).value == pytest.approx(1 - residual.item(), abs=1e-6)


def test_majority_breaks_ties_by_nearness():
    labels = torch.tensor([[2, 1, 1, 2, 3], [4, 5, 6, 7, 8], [1, 2, 2, 1, 2]])
    assert majority(labels).tolist() == [2, 4, 2]


def test_separate_classes_are_recognised():
    labels = torch.arange(60) % 3
    features = torch.nn.functional.one_hot(labels).float() + 0.01 * torch.arange(60)[:, None] / 60
    result = scored(features, labels)
    assert result.value == 1.0 and result.standard_error == 0.0


def test_bad_options_and_constant_values_are_refused():
    with pytest.raises(ValueError, match="`k`"):
        KNN(k=0)
    with pytest.raises(ValueError, match="constant"):
        scored(torch.rand(20, 2), torch.ones(20))
    with pytest.raises(ValueError, match="two rows"):
        scored(torch.rand(1, 2), torch.tensor([0]))
