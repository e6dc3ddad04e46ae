import numpy as np
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


def ridge_by_refitting(features, targets):
    """Of the ridges 1e-6 to 1e3 times the mean squared singular value, that of least leave-one-out error."""
    squares = np.linalg.svd(features - features.mean(axis=0), compute_uv=False) ** 2
    mean = squares[squares > 1e-12 * squares.max()].mean()
    errors = dict.fromkeys(mean * 10.0**exponent for exponent in range(-6, 4))
    for ridge in errors:
        errors[ridge] = 0.0
        for row in range(len(features)):
            others, theirs = np.delete(features, row, axis=0), np.delete(targets, row, axis=0)
            centred = others - others.mean(axis=0)
            weights = np.linalg.solve(centred.T @ centred + ridge * np.eye(features.shape[1]), centred.T @ theirs)
            guess = theirs.mean(axis=0) + (features[row] - others.mean(axis=0)) @ weights
            errors[ridge] += np.square(guess - targets[row]).sum()
    return min(errors, key=errors.get)


@pytest.mark.parametrize("noise", [1e-4, 3.0, 1e3])
def test_the_ridge_is_that_of_least_leave_one_out_error(noise):
    features, _ = make_data(25, 6)
    features *= torch.tensor([4.0, 3.0, 2.0, 1.0, 0.5, 0.2]).double()
    errors = torch.randn(25, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    targets = features @ torch.ones(6, 2, dtype=torch.float64) + noise * errors
    expected = ridge_by_refitting(features.numpy(), targets.numpy())
    assert leave_one_out_predictions(features, targets)[1] == pytest.approx(expected, rel=1e-9)


def test_features_that_repeat_others_and_their_scale_change_nothing():
    features, targets = make_data(40, 5)
    more = torch.cat([features, features[:, :2] - features[:, 2:4], torch.full((40, 1), 7.0)], dim=1)
    predictions, ridge = leave_one_out_predictions(more, targets)
    expected = cross_val_predict(Ridge(ridge), more.numpy(), targets.numpy(), cv=LeaveOneOut())
    torch.testing.assert_close(predictions, torch.tensor(expected), atol=1e-8, rtol=1e-8)
    for scale in (1e-9, 1e9):
        torch.testing.assert_close(leave_one_out_predictions(more * scale, targets)[0], predictions)


def test_of_two_rows_each_predicts_the_other():
    features, targets = torch.tensor([[1.0], [2.0]]).double(), torch.tensor([[5.0], [-1.0]]).double()
    predictions, _ = leave_one_out_predictions(features, targets)
    assert predictions.flatten().tolist() == pytest.approx([-1.0, 5.0], abs=1e-4)
    with pytest.raises(ValueError, match="two rows"):
        leave_one_out_predictions(features[:1], targets[:1])


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


def test_r2_of_one_column_of_values():
    features, targets = make_data(30, 4)
    score = LinearProbe()
    score.update(features, targets[:, 0])
    result = score.compute()
    expected = cross_val_predict(Ridge(result.diagnostics["ridge"]), features, targets[:, 0], cv=LeaveOneOut())
    assert result.value == pytest.approx(r2_score(targets[:, 0], expected), abs=1e-5)


def test_constant_features_are_refused():
    score = LinearProbe()
    score.update(torch.ones(20, 3), torch.arange(20) % 2)
    with pytest.raises(ValueError, match="features differ"):
        score.compute()
