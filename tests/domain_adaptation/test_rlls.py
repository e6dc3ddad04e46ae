"""Regularised weights: the minimum that the paper asks for, and what is left where answers tell little."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from hf_transfer.domain_adaptation.bbse import bbse_weights
from hf_transfer.domain_adaptation.rlls import deviation_bound, matching_ridge, ridge_weights, rlls_weights


def counts(classes: int, seed: int, rows: int = 120):
    """Noisy answers of few rows, and a target whose shares differ."""
    generator = np.random.default_rng(seed)
    answers = 0.5 * np.eye(classes) + 0.5 * generator.dirichlet(np.ones(classes), classes).T
    labels = generator.multinomial(rows, generator.dirichlet(np.full(classes, 5.0)))
    confusion = np.stack([generator.multinomial(n, answers[:, c]) for c, n in enumerate(labels)], axis=1)
    target = generator.multinomial(rows, answers @ generator.dirichlet(np.ones(classes)))
    return torch.from_numpy(confusion).double(), torch.from_numpy(target).double()


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.4, 5.0])
@pytest.mark.parametrize("classes, seed", [(2, 0), (3, 1), (6, 2)])
def test_it_is_the_minimum_of_the_papers_objective(classes, seed, alpha):
    confusion, target = counts(classes, seed)
    joint, mu = (confusion / confusion.sum()).numpy(), (target / target.sum()).numpy()
    rho = 3 * (2 * math.log(2 * classes / 0.05) / 360 + math.sqrt(2 * math.log(2 * classes / 0.05) / 120))
    assert deviation_bound(classes, 120) == pytest.approx(rho)

    def objective(theta):
        return np.linalg.norm(joint @ theta - (mu - joint.sum(axis=1))) + alpha * rho * np.linalg.norm(theta)

    found = rlls_weights(confusion, target, alpha=alpha).numpy() - 1
    assert (found >= -1).all()
    starts = np.random.default_rng(0).uniform(-1, 1, (4, classes))
    others = [minimize(objective, start, method="SLSQP", bounds=[(-1, None)] * classes).fun for start in starts]
    assert objective(found) <= min(others) + 1e-7


def test_strong_regularisation_leaves_all_weights_at_one():
    confusion, target = counts(3, 1)
    assert matching_ridge(confusion, target, alpha=100.0) == math.inf
    assert rlls_weights(confusion, target, alpha=100.0).tolist() == [1, 1, 1]
    assert ridge_weights(confusion, target, 1e9).tolist() == pytest.approx([1, 1, 1], abs=1e-6)


def test_where_the_answers_are_clear_it_is_black_box_shift_estimation():
    confusion, target = torch.diag(torch.tensor([300.0, 300.0])), torch.tensor([500.0, 100.0])
    assert rlls_weights(confusion, target).tolist() == pytest.approx(
        bbse_weights(confusion, target).tolist(), abs=1e-5
    )


def test_a_class_that_is_never_predicted_shares_the_weight_of_what_it_is_taken_for():
    """All of class 2 are taken for 1, so that the two cannot be told apart; 0 can."""
    confusion = torch.tensor([[50.0, 0.0, 0.0], [0.0, 30.0, 20.0], [0.0, 0.0, 0.0]])
    weights = rlls_weights(confusion, torch.tensor([20.0, 80.0, 0.0]))
    assert weights[0].item() == pytest.approx(0.4, abs=1e-4)
    assert (0.3 * weights[1] + 0.2 * weights[2]).item() == pytest.approx(0.8, abs=1e-4)


def test_a_class_without_source_rows_keeps_the_weight_one():
    confusion = torch.tensor([[60.0, 0.0, 0.0], [0.0, 40.0, 0.0], [0.0, 0.0, 0.0]])
    assert rlls_weights(confusion, torch.tensor([10.0, 90.0, 0.0])).tolist() == pytest.approx([1 / 6, 2.25, 1], 1e-4)


def test_a_class_that_the_target_lacks_has_the_weight_zero():
    confusion = torch.tensor([[45.0, 5.0], [5.0, 45.0]])
    assert rlls_weights(confusion, torch.tensor([90.0, 10.0])).tolist() == pytest.approx([2, 0], abs=1e-5)


def test_a_keyword_out_of_range_is_refused():
    confusion, target = counts(2, 0)
    with pytest.raises(ValueError, match="`alpha` should be positive"):
        rlls_weights(confusion, target, alpha=0)
    with pytest.raises(ValueError, match=r"`delta` should be in \(0, 1\)"):
        rlls_weights(confusion, target, delta=1.0)
