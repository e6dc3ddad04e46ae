"""Residual adapters against their formula, naively."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from peft import get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from hf_transfer.tuners.residual import Bottleneck, KroneckerLinear, ResidualConfig, ResidualLayer
from tests import tiny

DIGITS = 1e-10


def layer_of(base: nn.Module, *adapters: str, **settings) -> ResidualLayer:
    """An adapted layer in double precision, the adapters' weights at random."""
    torch.manual_seed(0)
    names = adapters or ("default",)
    layer = ResidualLayer(base, names[0], ResidualConfig(**settings))
    for name in names[1:]:
        layer.update_layer(name, ResidualConfig(**settings))
    layer.double().set_adapter(list(names))
    for parameter in layer.residual_tuner_bottlenecks.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def test_serial_adapters_follow_the_formula_in_order():
    layer = layer_of(nn.Linear(6, 8), "first", "second", r=3, scaling=0.5, non_linearity="relu")
    x = torch.randn(5, 6, dtype=torch.float64)
    first, second = (layer.residual_tuner_bottlenecks[name] for name in ("first", "second"))

    def adapter(one: Bottleneck, h):
        hidden = torch.relu(h @ one.down.weight.T + one.down.bias)
        return 0.5 * (hidden @ one.up.weight.T + one.up.bias)

    h = layer.base_layer(x)
    once = h + adapter(first, h)
    expected = once + adapter(second, once)
    assert torch.allclose(layer(x), expected, atol=DIGITS)
    weights = list(layer.residual_tuner_bottlenecks.parameters())
    ours, naive = (torch.autograd.grad(value.square().sum(), weights) for value in (layer(x), expected))
    assert all(torch.allclose(one, other, atol=1e-8) for one, other in zip(ours, naive, strict=True))
    layer.set_adapter(["second", "first"])
    swapped = h + adapter(second, h)
    assert torch.allclose(layer(x), swapped + adapter(first, swapped), atol=DIGITS)


def test_a_parallel_adapter_reads_the_input():
    layer = layer_of(Conv1D(8, 6), r=3, placement="parallel", non_linearity="gelu")
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    one = layer.residual_tuner_bottlenecks["default"]
    hidden = F.gelu(x @ one.down.weight.T + one.down.bias)
    expected = x @ layer.base_layer.weight + layer.base_layer.bias + hidden @ one.up.weight.T + one.up.bias
    assert torch.allclose(layer(x), expected, atol=DIGITS)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_have_adapters_of_one_by_one(stride):
    base = nn.Conv2d(3, 6, 3, stride=stride, padding=1)
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    for placement in ("serial", "parallel"):
        layer = layer_of(base, r=2, placement=placement, non_linearity="relu")
        one = layer.residual_tuner_bottlenecks["default"]
        h = F.conv2d(x, base.weight, base.bias, stride=stride, padding=1)
        read = h if placement == "serial" else x[:, :, ::stride, ::stride]
        hidden = torch.relu(
            torch.einsum("bchw,rc->brhw", read, one.down.weight[:, :, 0, 0]) + _channels(one.down.bias)
        )
        change = torch.einsum("brhw,cr->bchw", hidden, one.up.weight[:, :, 0, 0]) + _channels(one.up.bias)
        assert torch.allclose(layer(x), h + change, atol=DIGITS)


def _channels(bias):
    return bias[:, None, None]


def test_kronecker_products():
    torch.manual_seed(0)
    linear = KroneckerLinear(8, 6, terms=2).double()
    expected = sum(torch.kron(linear.rules[n], torch.outer(linear.rows[n], linear.columns[n])) for n in range(2))
    assert torch.allclose(linear.weight, expected, atol=DIGITS)
    x = torch.randn(3, 8, dtype=torch.float64)
    assert torch.allclose(linear(x), x @ expected.T, atol=DIGITS)
    assert sum(p.numel() for p in linear.parameters()) == 2**3 + 8 + 6 + 6
    adapted = ResidualLayer(nn.Linear(8, 8), "default", ResidualConfig(r=4, kronecker_terms=2))
    x = x.float()
    assert torch.equal(adapted(x), adapted.base_layer(x))
    adapted(x).sum().backward()
    assert adapted.residual_tuner_bottlenecks["default"].up.rows.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="`kronecker_terms` should divide the widths 8 and 4, got 3"):
        ResidualLayer(nn.Linear(8, 8), "default", ResidualConfig(r=4, kronecker_terms=3))
    with pytest.raises(ValueError, match="`kronecker_terms` is for linear layers"):
        ResidualLayer(nn.Conv2d(4, 4, 1), "default", ResidualConfig(r=2, kronecker_terms=2))


@pytest.mark.parametrize("placement", ["serial", "parallel"])
@pytest.mark.parametrize("terms", [None, 2])
@pytest.mark.parametrize("kind", ["linear", "without_bias", "conv1d", "conv2d"])
def test_linear_adapters_merge_exactly(kind, placement, terms):
    base, x = {
        "linear": (nn.Linear(6, 8), torch.randn(5, 6)),
        "without_bias": (nn.Linear(6, 8, bias=False), torch.randn(5, 6)),
        "conv1d": (Conv1D(8, 6), torch.randn(5, 6)),
        "conv2d": (nn.Conv2d(6, 8, 3, stride=2, padding=1), torch.randn(2, 6, 7, 7)),
    }[kind]
    terms = None if kind == "conv2d" else terms
    layer = layer_of(base, "first", "second", r=2, placement=placement, non_linearity=None, kronecker_terms=terms)
    x, before = x.double(), {name: value.clone() for name, value in base.state_dict().items()}
    expected = layer(x)
    layer.merge()
    assert torch.allclose(base(x), expected, atol=DIGITS) and torch.equal(layer(x), base(x))
    layer.unmerge()
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_what_cannot_be_merged_says_what_to_do():
    with pytest.raises(ValueError, match=r"non-linearity cannot be merged.*`unload\(\)`.*`non_linearity=None`"):
        layer_of(nn.Linear(4, 4), r=2).merge()
    with pytest.raises(ValueError, match="cannot be merged into a grouped convolution"):
        layer_of(nn.Conv2d(4, 4, 3, groups=4), r=2, non_linearity=None).merge()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, "`r` should be positive, got 0"),
        ({"placement": "above"}, "`placement` should be one of"),
        ({"non_linearity": "bent"}, "`non_linearity` should be an activation"),
        ({"dropout": 1.0}, "`dropout` should be in"),
        ({"kronecker_terms": 0}, "`kronecker_terms` should be positive"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ResidualConfig(**settings)


def test_layers_that_cannot_be_adapted():
    with pytest.raises(ValueError, match="choose other `target_modules`"):
        layer_of(nn.LayerNorm(4), r=2)
    with pytest.raises(ValueError, match="parallel adapter needs a convolution with an odd kernel"):
        layer_of(nn.Conv2d(4, 4, 2, stride=2), r=2, placement="parallel")
    with pytest.raises(ValueError, match="ResidualConfig found no layers to adapt in Sequential"):
        get_peft_model(nn.Sequential(nn.ReLU()), ResidualConfig())


@pytest.mark.parametrize(
    ("make", "endings", "count"),
    [
        (tiny.bert, ("attention.output.dense", "output.dense"), 4),
        (tiny.gpt2, ("c_proj",), 4),
        (tiny.vit, ("o_proj", "fc2"), 4),
        (tiny.llama, ("o_proj", "down_proj"), 4),
        (tiny.flowformer, ("o_proj", "fc2"), 4),
        (tiny.convnext, ("pwconv2",), 2),
        (tiny.resnet, ("convolution",), 4),
        (tiny.efficientnet, ("project_conv",), 7),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_attention_and_mlp_outputs_are_found(make, endings, count):
    adapted = get_peft_model(make(), ResidualConfig(r=2)).targeted_module_names
    assert len(adapted) == count and all(name.endswith(endings) for name in adapted)
