import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from hf_transfer.ranking import KNN, LinearProbe
from hf_transfer.ranking.scores.knn import majority, nearest_neighbours


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


def values_by_loops(features, values, k):
    """R^2 of the mean of the k rows of largest cosine, averaged over columns."""
    sums, columns = [0.0] * values.shape[1], values.shape[1]
    for row, feature in enumerate(features):
        others = [place for place in range(len(features)) if place != row]
        others.sort(key=lambda place: -float(feature @ features[place] / feature.norm() / features[place].norm()))
        for column in range(columns):
            guess = sum(float(values[place, column]) for place in others[:k]) / k
            sums[column] += (float(values[row, column]) - guess) ** 2
    spreads = (len(values) * values.var(dim=0, correction=0)).tolist()
    return sum(1 - error / spread for error, spread in zip(sums, spreads)) / columns


def test_r2_of_several_columns_is_their_mean():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(40, 3, generator=generator)
    values = torch.stack([features[:, 0], 100 + 30 * features[:, 1]], dim=1) + torch.rand(40, 2, generator=generator)
    assert scored(features, values, k=3).value == pytest.approx(values_by_loops(features, values, 3), abs=1e-6)


def test_the_block_of_rows_changes_nothing(monkeypatch):
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    whole = nearest_neighbours(features, 6)
    monkeypatch.setattr("hf_transfer.ranking.scores.knn.ROWS_AT_ONCE", 7)
    assert torch.equal(nearest_neighbours(features, 6), whole)
    assert all(row not in theirs for row, theirs in enumerate(whole.tolist()))


def test_length_is_no_likeness():
    # by angle 0 and 1 are nearest, by distance 0 and 2
    features = torch.tensor([[1.0, 0.0], [90.0, 9.0], [0.0, 1.0], [-1.0, 2.0]])
    assert nearest_neighbours(features, 1).flatten().tolist() == [1, 0, 3, 2]


def test_as_many_neighbours_as_there_are_other_rows():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]])
    # all others vote, the nearer first: 0 for [1, 0], 1 for [0, 0] and 2 for [1, 0]
    assert scored(features, torch.tensor([0, 1, 0]), shards=1).value == 0.0
    assert scored(features, torch.tensor([0.0, 1.0, 2.0]), shards=1).value == pytest.approx(1 - (1.5**2 * 2) / 2)
    assert scored(features[:2], torch.tensor([3, 3]), shards=1).value == 1.0


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
    for values in (torch.ones(20), torch.full((20, 2), 0.1)):
        with pytest.raises(ValueError, match="same for all rows"):
            scored(torch.rand(20, 2), values)
    with pytest.raises(ValueError, match="two rows"):
        scored(torch.rand(1, 2), torch.tensor([0]))


@pytest.mark.parametrize("score", [KNN, LinearProbe])
@pytest.mark.parametrize("rest", [0.0, 1.0, 0.1])
def test_a_label_that_all_rows_or_none_have_is_left_out(score, rest):
    torch.manual_seed(0)
    features = torch.randn(60, 3)
    labels = (features[:, :2] > 0).double()
    one, other = score(), score()
    one.update(features, labels)
    other.update(features, torch.cat([labels, torch.full((60, 1), rest).double()], dim=1))
    assert other.compute().value == pytest.approx(one.compute().value, abs=1e-9)
