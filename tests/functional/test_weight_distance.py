import pytest
import torch

from hf_transfer.functional.weight_distance import half_squared_distance

SHAPES = [(3, 4), (5,), (), (2, 1, 3)]


def tensors(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_against_the_formula(weighted):
    here, naive = ([w.requires_grad_() for w in tensors(0)] for _ in range(2))
    starts, importances = tensors(1), [v.abs() for v in tensors(2)]
    loss = 3.0 * half_squared_distance(here, starts, importances if weighted else None)
    expected = 0.0
    for w, w0, v in zip(naive, starts, importances):
        expected = expected + 1.5 * ((v if weighted else 1.0) * (w - w0) ** 2).sum()
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    for w, other in zip(here, naive):
        torch.testing.assert_close(w.grad, other.grad)


def test_the_start_costs_nothing_and_pulls_nowhere():
    here = [w.requires_grad_() for w in tensors(0)]
    loss = half_squared_distance(here, tensors(0))
    loss.backward()
    assert loss.item() == 0 and all(not w.grad.any() for w in here)


def test_no_tensors_and_half_precision():
    assert half_squared_distance([], []).item() == 0
    here = [w.bfloat16().requires_grad_() for w in tensors(0)]
    loss = half_squared_distance(here, [torch.zeros_like(w) for w in here])
    loss.backward()
    assert loss.dtype == torch.float32 and here[0].grad.dtype == torch.bfloat16
    torch.testing.assert_close(here[0].grad, here[0].detach())
