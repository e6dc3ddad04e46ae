import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from hf_transfer.ranking import LinearProbe
from hf_transfer.ranking.scores.linear_probe import leave_one_out_predictions


def make_data(rows, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, size, generator=generator, dtype=torch.float64) + 2
    targets = features[:, :2] + torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    return features, targets


@pytest.mark.parametrize(("rows", "size"), [(60, 8), (30, 50)])
def test_predictions_equal_refitting_without_each_row(rows, size):
    features, targets = make_data(rows, size)
    predictions, ridge = leave_one_out_predictions(features, targets)
    expected = cross_val_predict(Ridge(alpha=ridge), features.numpy(), targets.numpy(), cv=LeaveOneOut())
    torch.testing.assert_close(predictions, torch.tensor(expected), atol=1e-8, rtol=1e-8)


def test_accuracy_of_classes():
    images, labels = (torch.tensor(part[:100]) for part in load_digits(return_X_y=True))
    score = LinearProbe()
    score.update(images, labels)
    result = score.compute()
    targets = torch.nn.functional.one_hot(labels).double()
    expected = cross_val_predict(Ridge(result.diagnostics["ridge"]), images.numpy(), targets.numpy(), cv=LeaveOneOut())
    assert result.value == pytest.approx((torch.tensor(expected).argmax(1) == labels).double().mean().item())
    assert 0 < result.standard_error < 0.1


def test_r2_of_values():
    features, targets = make_data(80, 5)
    features = features.float().double()
    score = LinearProbe()
    score.update(features, targets)
    predictions, _ = leave_one_out_predictions(features, targets)
    assert score.compute().value == pytest.approx(r2_score(targets.numpy(), predictions.numpy()), abs=1e-6)


def test_constant_features_are_refused():
    score = LinearProbe()
    score.update(torch.ones(20, 3), torch.arange(20) % 2)
    with pytest.raises(ValueError, match="features differ"):
        score.compute()
