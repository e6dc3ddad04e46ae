from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from hf_transfer.objective import View
from hf_transfer.pretraining.irm import IRM, invariance_penalty, scale_gradients

ENVIRONMENT = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 2])


def batch(regression=False, progress=0.5):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 1 if regression else 4, generator=generator).requires_grad_()
    labels = torch.randn(10, generator=generator) if regression else torch.randint(4, (10,), generator=generator)
    features = torch.zeros(10, 2, requires_grad=True)
    return View(features=features, logits=logits, labels=labels, domain=ENVIRONMENT, progress=progress)


def naive_penalty(view):
    """The gradients by double backward, each on every second row of an environment."""
    total = 0.0
    for e in range(3):
        gradients = []
        for half in (0, 1):
            rows = torch.nonzero(view.domain == e).flatten()[half::2]
            scale = torch.ones(1, requires_grad=True)
            logits = scale * view.logits[rows]
            if view.labels.is_floating_point():
                risk = F.mse_loss(logits.squeeze(1), view.labels[rows])
            else:
                risk = F.cross_entropy(logits, view.labels[rows])
            gradients += torch.autograd.grad(risk, scale, create_graph=True)
        total = total + (gradients[0] * gradients[1]).sum() / 3
    return total


@pytest.mark.parametrize("regression", [False, True])
def test_value_and_gradient_against_double_backward(regression):
    view, naive = batch(regression), batch(regression)
    loss, expected = IRM()(view), naive_penalty(naive)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(view.logits.grad, naive.logits.grad)


def test_a_classifier_that_is_optimal_everywhere_costs_nothing():
    view = batch()
    assert IRM()(replace(view, logits=torch.zeros(10, 4))).item() == 0
    assert IRM()(view).item() != 0


def test_an_invariant_classifier_costs_nothing_in_expectation():
    """Labels drawn from its own predictions; the square of one half would be .04 on batches of eight rows."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 16, 3, generator=generator)
    labels = torch.multinomial(logits.flatten(0, 1).softmax(dim=1), 1, generator=generator).reshape(4000, 16)
    environment = torch.arange(16) % 2
    gradients = scale_gradients(logits.flatten(0, 1), labels.flatten()).reshape(4000, 16)
    penalties = torch.stack([invariance_penalty(rows, environment) for rows in gradients])
    error = penalties.std() / len(penalties) ** 0.5
    assert abs(penalties.mean()) < 3 * error < 0.01
    assert (gradients[:, ::2].mean(dim=1) ** 2).mean() > 10 * error


def test_an_environment_of_one_row_is_left_out():
    gradients = torch.tensor([1.0, 2.0, 3.0, 5.0])
    assert invariance_penalty(gradients, torch.tensor([0, 0, 0, 7])).item() == pytest.approx((1 + 3) / 2 * 2)
    assert invariance_penalty(gradients, torch.arange(4)) is None
    view = batch()
    assert IRM()(replace(view, domain=torch.arange(10))).item() == 0


def test_the_penalty_waits_and_needs_labels():
    assert IRM(starts_at=0.6)(batch(progress=0.5)).item() == 0
    assert IRM()(replace(batch(), labels=torch.full((10,), -100))).item() == 0
    with pytest.raises(ValueError, match="`domain`"):
        IRM()(replace(batch(), domain=None))


def test_an_invalid_keyword_raises():
    with pytest.raises(ValueError, match="`starts_at`"):
        IRM(starts_at=-0.1)
