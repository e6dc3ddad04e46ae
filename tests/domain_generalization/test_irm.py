from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from hf_transfer.core.objective import View
from hf_transfer.domain_generalization.irm import IRM, invariance_penalty, scale_gradients

ENVIRONMENT = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 2])


LABELS = {
    "classes": lambda generator: torch.randint(4, (10,), generator=generator),
    "numbers": lambda generator: torch.randn(10, generator=generator),
    "whole numbers": lambda generator: torch.randint(9, (10,), generator=generator),
    "several labels": lambda generator: torch.randint(2, (10, 4), generator=generator),
}


def batch(kind="classes", progress=0.5):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 1 if "numbers" in kind else 4, generator=generator).requires_grad_()
    features = torch.zeros(10, 2, requires_grad=True)
    labels = LABELS[kind](generator)
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
            if view.labels.ndim == 2:
                risk = F.binary_cross_entropy_with_logits(logits, view.labels[rows].float())
            elif logits.shape[1] == 1:
                risk = F.mse_loss(logits.squeeze(1), view.labels[rows].float())
            else:
                risk = F.cross_entropy(logits, view.labels[rows])
            gradients += torch.autograd.grad(risk, scale, create_graph=True)
        total = total + (gradients[0] * gradients[1]).sum() / 3
    return total


@pytest.mark.parametrize("kind", LABELS)
def test_value_and_gradient_against_double_backward(kind):
    view, naive = batch(kind), batch(kind)
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


def test_a_class_that_is_ruled_out_adds_nothing():
    view = batch()
    labels = view.labels.masked_fill(view.labels == 3, 0)
    mask = torch.tensor([0.0, 0.0, 0.0, -torch.inf])
    masked = IRM()(replace(view, logits=view.logits + mask, labels=labels))
    torch.testing.assert_close(masked, IRM()(replace(view, logits=view.logits[:, :3], labels=labels)))
