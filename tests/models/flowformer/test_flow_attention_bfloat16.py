"""Bidirectional flow attention in bfloat16 as a GPU takes it, here on a CPU: its errors, and what it never holds."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hf_transfer.models.flowformer import flow_attention, flow_attention_bidirectional
from hf_transfer.models.flowformer.flow_attention import naive_flow_attention

LENGTH, DIM = 256, 32


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(flow_attention_bidirectional, "BFLOAT16_DEVICES", ("cpu",))


def inputs() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, 2, LENGTH, DIM).bfloat16() for _ in range(4)]


def output_and_gradients(attend, tensors, weights, **options) -> list[torch.Tensor]:
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    output = attend(*tensors, **options)
    return [output.detach(), *torch.autograd.grad(output, tensors, weights)]


# deviations of the errors in shares of the exact values' deviation, measured .0044, .0100, .0188 (keys at a clamp of
# 1, where a source close to the clamp has a gradient or none), .0041; rounding alone makes .0016
@pytest.mark.parametrize(
    ("clamp", "bounds"), [(1.0, [0.006, 0.014, 0.03, 0.006]), (30.0, [0.006, 0.014, 0.007, 0.006])]
)
@pytest.mark.parametrize("padded", [False, True])
def test_errors_against_float64(clamp, bounds, padded):
    *tensors, weights = inputs()
    mask = torch.ones(1, LENGTH, dtype=torch.bool)
    mask[:, LENGTH - 50 :] = not padded
    options = {"competition_clamp": clamp, "key_mask": mask, "query_mask": mask}
    exact = [tensor.double() for tensor in tensors]
    wanted = output_and_gradients(naive_flow_attention, exact, weights.double(), **options)
    found = output_and_gradients(flow_attention, tensors, weights, **options)
    for result, reference, bound in zip(found, wanted, bounds):
        assert result.dtype == torch.bfloat16
        assert (result.double() - reference).std() < bound * reference.std()
        assert not padded or not result[:, :, LENGTH - 50 :].any()


class LargeTensors(TorchDispatchMode):
    """The types of all results as large as queries, keys or values."""

    def __init__(self):
        super().__init__()
        self.types = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            if torch.is_tensor(tensor) and tensor.numel() >= 2 * LENGTH * DIM:
                self.types.add(tensor.dtype)
        return result


def test_nothing_large_is_held_in_float32(monkeypatch):
    *tensors, weights = inputs()
    with LargeTensors() as seen:
        output_and_gradients(flow_attention, tensors, weights)
    assert seen.types == {torch.bfloat16}
    monkeypatch.setattr(flow_attention_bidirectional, "BFLOAT16_DEVICES", ())
    with LargeTensors() as seen:
        output_and_gradients(flow_attention, tensors, weights)
    assert torch.float32 in seen.types


def test_second_derivatives_exist():
    tensors = [tensor[:, :, :8].clone().requires_grad_() for tensor in inputs()[:3]]
    gradient = torch.autograd.grad(flow_attention(*tensors).float().square().sum(), tensors, create_graph=True)
    sum(x.float().square().sum() for x in gradient).backward()
    assert all(tensor.grad.isfinite().all() and tensor.grad.any() for tensor in tensors)
