import math

import pytest
import torch
from torch.func import grad, vmap

from hf_transfer.functional import gradient_reversal, warm_start_coefficient


def test_identity_forward_and_minus_coefficient_backward():
    inputs = torch.arange(6.0).reshape(2, 3).requires_grad_()
    outputs = gradient_reversal(inputs, 0.3)
    torch.testing.assert_close(outputs, inputs)
    outputs.square().sum().backward()
    torch.testing.assert_close(inputs.grad, -0.3 * 2 * inputs.detach())


def test_gradients_of_each_row_by_vmap():
    inputs = torch.arange(6.0).reshape(2, 3)
    found = vmap(grad(lambda row: gradient_reversal(row, 0.3).square().sum()))(inputs)
    torch.testing.assert_close(found, -0.3 * 2 * inputs)


def test_the_published_schedule():
    # alpha 1 over 1000 iterations, at iteration 100.
    assert warm_start_coefficient(0.1, high=1.0, alpha=1.0) == pytest.approx(0.0499584, abs=1e-7)
    assert warm_start_coefficient(0.0) == 0
    assert warm_start_coefficient(1.0, high=0.1) == pytest.approx(0.1 * math.tanh(5.0))
