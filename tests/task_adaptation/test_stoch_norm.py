import copy

import pytest
import torch
from torch import nn

from hf_transfer.modeling.surgery import sidecars_of
from hf_transfer.models.flowformer.layers_flowformer import FlowformerBatchNorm
from hf_transfer.task_adaptation.stoch_norm import MOMENTUM, StochasticBatch, convert
from hf_transfer.training.converters import convert_model
from tests import tiny

SHAPES = {nn.BatchNorm1d: (6, 4), nn.BatchNorm2d: (6, 4, 3, 3), FlowformerBatchNorm: (6, 5, 4)}


class Wrapped(nn.Module):
    """A norm that stands where a Hugging Face model would."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm


def norm_pair(kind, p, monkeypatch):
    """A norm with history, and the same one converted."""
    monkeypatch.setattr("hf_transfer.modeling.surgery.unwrap_peft", lambda model: model)
    torch.manual_seed(0)
    plain = kind(4)
    with torch.no_grad():
        for tensor in (plain.weight, plain.bias, *((plain.running_mean,) if hasattr(plain, "running_mean") else ())):
            tensor.copy_(torch.randn(4))
    if hasattr(plain, "running_var"):
        plain.running_var.uniform_(0.5, 2)
    model = Wrapped(copy.deepcopy(plain))
    convert(model, p=p, layer_norm=True)
    return plain, model.norm, sidecars_of(model)["stoch_norm"]


def run(norm, states, weights, **kwargs):
    """Output and gradients of a weighted sum of it."""
    states = states.clone().requires_grad_()
    output = norm(states, **kwargs)
    return output, *torch.autograd.grad((output * weights).sum(), (states, norm.weight, norm.bias))


@pytest.mark.parametrize("kind", list(SHAPES))
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_value_and_gradient_against_the_formula(kind, p, monkeypatch):
    plain, norm, _ = norm_pair(kind, p, monkeypatch)
    states, weights = torch.randn(SHAPES[kind]), torch.randn(SHAPES[kind])
    results = run(norm, states, weights)
    moving = run(copy.deepcopy(plain).eval(), states, weights)
    batch = run(plain.train(), states, weights)  # which also moves the statistics
    axis = -1 if kind is FlowformerBatchNorm else 1
    channels = [
        [torch.allclose(results[0].select(axis, c), one[0].select(axis, c), atol=1e-6) for one in (batch, moving)]
        for c in range(4)
    ]
    assert all(sum(which) == 1 for which in channels), "every channel takes one of the two"
    if p != 0.5:
        assert all(which == [p == 1, p == 0] for which in channels)
    for c, (is_batch, _) in enumerate(channels):
        expected = batch if is_batch else moving
        torch.testing.assert_close(results[1].select(axis, c), expected[1].select(axis, c), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(results[2][c], expected[2][c], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(results[3][c], expected[3][c], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.running_var, plain.running_var)
    torch.testing.assert_close(norm.eval()(states), plain.eval()(states))


def test_half_of_the_channels_choose_the_batch(monkeypatch):
    _, norm, _ = norm_pair(nn.BatchNorm1d, 0.25, monkeypatch)
    states, count = torch.randn(6, 4), 0
    for _ in range(200):
        norm.running_mean.fill_(100.0)
        count += (norm(states).mean(0) - norm.bias).abs().lt(1e-3).sum().item()
    assert 150 < count < 250


def test_padding_reaches_the_norm_of_a_flowformer(monkeypatch):
    plain, norm, _ = norm_pair(FlowformerBatchNorm, 1.0, monkeypatch)
    states, mask = torch.randn(6, 5, 4), torch.arange(5) < torch.tensor([5, 4, 3, 2, 1, 5])[:, None]
    torch.testing.assert_close(norm(states, mask), plain(states, mask))


def test_a_layer_norm_against_the_formula(monkeypatch):
    plain, norm, sidecar = norm_pair(nn.LayerNorm, 0.0, monkeypatch)
    mean = variance = None
    for _ in range(3):
        states, weights = torch.randn(2, 3, 4) * 2 + 1, torch.randn(2, 3, 4)
        newest = states.mean(-1).mean(), states.var(-1, correction=0).mean()
        mean, variance = newest if mean is None else (mean, variance)
        results = run(norm, states, weights)
        naive = states.clone().requires_grad_()
        expected = (naive - mean) / (variance + plain.eps).sqrt() * plain.weight + plain.bias
        torch.testing.assert_close(results[0], expected)
        torch.testing.assert_close(results[1], torch.autograd.grad((expected * weights).sum(), naive)[0])
        mean = (1 - MOMENTUM) * mean + MOMENTUM * newest[0]
        variance = (1 - MOMENTUM) * variance + MOMENTUM * newest[1]
    torch.testing.assert_close(sidecar.layers["norm"].mean, mean)
    torch.testing.assert_close(norm.eval()(states), plain(states))
    certain = norm_pair(nn.LayerNorm, 1.0, monkeypatch)
    torch.testing.assert_close(certain[1](states), certain[0](states))


def test_a_model_keeps_its_names_and_its_evaluation():
    torch.manual_seed(0)
    model = tiny.resnet()
    names, pixels = list(model.state_dict()), torch.randn(2, 1, 14, 14)
    expected = model.eval()(pixels).logits
    assert convert(model) is model
    assert list(model.state_dict()) == names
    assert sum(isinstance(module, StochasticBatch) for module in model.modules()) == 6
    torch.testing.assert_close(model(pixels).logits, expected)
    with pytest.raises(ValueError, match="converted by `stoch_norm` before"):
        convert(model)


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_an_invalid_keyword_raises(p):
    with pytest.raises(ValueError, match="`p` should be in"):
        convert(tiny.resnet(), p=p)


def test_a_model_without_batch_norms_says_what_to_do():
    with pytest.raises(ValueError, match="ViTForImageClassification has no batch norm .*`layer_norm: true`"):
        convert(tiny.vit())
    model = convert(tiny.vit(), layer_norm=True).train()
    assert model(torch.randn(2, 1, 14, 14)).logits.isfinite().all()


def test_norms_of_domains_are_made_stochastic_first():
    model = convert_model(tiny.resnet(), {"stoch_norm": {}, "dsbn": {}}).train()
    assert model(pixel_values=torch.randn(4, 1, 14, 14)).logits.isfinite().all()
    with pytest.raises(ValueError, match="`stoch_norm` after `dsbn`: name `stoch_norm` first"):
        convert_model(tiny.resnet(), {"dsbn": {}, "stoch_norm": {}})
