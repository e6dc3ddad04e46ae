from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from hf_transfer.objective import View
from hf_transfer.pretraining.irm import IRM

ENVIRONMENT = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 2])


def batch(regression=False, progress=0.5):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 1 if regression else 4, generator=generator).requires_grad_()
    labels = torch.randn(10, generator=generator) if regression else torch.randint(4, (10,), generator=generator)
    features = torch.zeros(10, 2, requires_grad=True)
    return View(features=features, logits=logits, labels=labels, domain=ENVIRONMENT, progress=progress)


def naive_penalty(view):
    total = 0.0
    for e in range(3):
        rows = view.domain == e
        scale = torch.ones(1, requires_grad=True)
        logits = scale * view.logits[rows]
        if view.labels.is_floating_point():
            risk = F.mse_loss(logits.squeeze(1), view.labels[rows])
        else:
            risk = F.cross_entropy(logits, view.labels[rows])
        (gradient,) = torch.autograd.grad(risk, scale, create_graph=True)
        total = total + gradient.square().sum() / 3
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
    assert IRM()(view).item() > 0


def test_the_penalty_waits_and_needs_labels():
    assert IRM(starts_at=0.6)(batch(progress=0.5)).item() == 0
    assert IRM()(replace(batch(), labels=torch.full((10,), -100))).item() == 0
    with pytest.raises(ValueError, match="`domain`"):
        IRM()(replace(batch(), domain=None))


def test_an_invalid_keyword_raises():
    with pytest.raises(ValueError, match="`starts_at`"):
        IRM(starts_at=-0.1)
