import math

import pytest
import torch

from hf_transfer.functional import certainty_weights, prediction_entropy


def test_entropy_and_gradient_against_the_formula():
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    naive = logits.detach().clone().requires_grad_()
    p = naive.exp() / naive.exp().sum(1, keepdim=True)
    expected = torch.stack([-sum(x * x.log() for x in row) for row in p])
    torch.testing.assert_close(prediction_entropy(logits), expected)
    prediction_entropy(logits).square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(logits.grad, naive.grad)


def test_known_entropies():
    entropies = prediction_entropy(torch.tensor([[0.0, 0.0, 0.0], [1e4, 0.0, 0.0]]))
    assert entropies.tolist() == pytest.approx([math.log(3), 0.0])


def test_certainty_weights_sum_to_the_batch_and_carry_no_gradient():
    logits = torch.tensor([[0.0, 0.0], [50.0, 0.0]], requires_grad=True)
    weights = certainty_weights(logits)
    assert not weights.requires_grad
    assert weights.tolist() == pytest.approx([2 * 1.5 / 3.5, 2 * 2.0 / 3.5])


def test_a_class_that_is_ruled_out_adds_nothing():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    masked = logits + torch.tensor([0.0, -torch.inf, 0.0, 0.0])
    entropy, expected = prediction_entropy(masked), prediction_entropy(logits[:, [0, 2, 3]])
    torch.testing.assert_close(entropy, expected)
    gradients = [torch.autograd.grad(value.sum(), logits)[0] for value in (entropy, expected)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(certainty_weights(masked), certainty_weights(logits[:, [0, 2, 3]]))
