import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from hf_transfer.modeling.surgery import reclass
from hf_transfer.multi_model import zoo_layers
from hf_transfer.multi_model.zoo_layers import MOMENTUM, Experts, ZooLayer, kind_of, pooled_tokens

EXPERTS = 3
IDS = torch.tensor([[1, 2, 3, 0], [4, 4, 0, 0]])
LAYERS = {
    "rows": (lambda: nn.Linear(5, 4), (2, 5)),
    "tokens": (lambda: nn.Linear(5, 4, bias=False), (2, 7, 5)),
    "grid": (lambda: nn.Linear(5, 4), (2, 3, 2, 5)),
    "transposed": (lambda: Conv1D(4, 5), (2, 7, 5)),
    "series": (lambda: nn.Conv1d(4, 6, 3, padding=1, groups=2), (2, 4, 9)),
    "images": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 7, 7)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False, padding="same"), (2, 4, 6, 6)),
    "reflected": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 5, 5)),
    "ids": (lambda: nn.Embedding(6, 4, padding_idx=0), None),
}


class Reads:
    """Stands for the state of the whole model."""

    mask = None

    def are_inputs(self, ids):
        return True


def made(kind, lite, align=True):
    """A layer of three sources with gates and alignments that have learned something, and an input for it."""
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    sources = [make() for _ in range(EXPERTS)]
    layer = copy.deepcopy(sources[0])
    experts = Experts(layer, [dict(source.state_dict()) for source in sources], lite, align)
    with torch.no_grad():
        for parameter in (*experts.gates.parameters(), *([experts.alignment] if align else [])):
            parameter.add_(0.3 * torch.randn(parameter.shape))
    layer.requires_grad_(False)
    reclass(layer, ZooLayer, experts=experts, sidecar=Reads())
    return layer, IDS if shape is None else torch.randn(shape)


def naive(layer, inputs, gates):
    """The formula row by row: a plain layer of a kernel of the row's own."""
    experts, rows = layer.experts, []
    for row, a in zip(inputs, gates):
        kernel, bias = 0.0, 0.0
        for e in range(EXPERTS):
            weight = experts.kernels[e]
            if experts.alignment is not None:
                if isinstance(layer, (nn.Embedding, Conv1D)):
                    weight = weight @ experts.alignment[e].T
                else:
                    weight = (experts.alignment[e] @ weight.flatten(1)).reshape(weight.shape)
            kernel = kernel + a[e] * weight
            bias = bias + a[e] * (0.0 if experts.biases is None else experts.biases[e])
        bias = None if experts.biases is None else bias
        if isinstance(layer, nn.Embedding):
            rows.append(kernel[row])
        elif isinstance(layer, Conv1D):
            rows.append(row @ kernel + bias)
        elif isinstance(layer, nn.Linear):
            rows.append(F.linear(row, kernel, bias))
        else:
            rows.append(layer._conv_forward(row[None], kernel, bias)[0])
    return torch.stack(rows)


def naive_gates(layer, inputs):
    if isinstance(layer, nn.Embedding):
        pooled = layer.experts.kernels[:, inputs].mean(dim=(0, 2))
    elif isinstance(layer, (nn.Linear, Conv1D)):
        pooled = inputs.reshape(len(inputs), -1, inputs.shape[-1]).mean(1)
    else:
        pooled = inputs.flatten(2).mean(2)
    gates = layer.experts.gates
    hidden = (pooled @ gates.squeeze.weight.T).clamp(min=0)
    return 1 / (1 + (-(hidden @ gates.expand.weight.T + gates.expand.bias)).exp())


def gradients(value, layer, inputs):
    wanted = [*layer.experts.parameters(), *([inputs] if inputs.requires_grad else [])]
    weights = torch.linspace(-1, 2, value.numel()).reshape(value.shape)
    return torch.autograd.grad((value * weights).sum(), wanted)


@pytest.mark.parametrize("way", ["kernels", "outputs"])
@pytest.mark.parametrize("lite", [False, True])
@pytest.mark.parametrize("kind", list(LAYERS))
def test_value_and_gradient_against_the_formula(kind, lite, way, monkeypatch):
    monkeypatch.setattr(zoo_layers, "per_row_is_cheaper", lambda *_: way == "kernels")
    layer, inputs = made(kind, lite)
    inputs.requires_grad_(inputs.is_floating_point())
    gates = naive_gates(layer, inputs)
    expected = naive(layer, inputs, gates.mean(0).expand(len(inputs), -1) if lite else gates)
    value = layer(inputs)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    pairs = list(zip(gradients(value, layer, inputs), gradients(expected, layer, inputs)))
    if isinstance(layer, nn.Embedding):
        assert pairs[0][0][:, layer.padding_idx].abs().max() == 0, "as in the plain layer"
        pairs[0][1][:, layer.padding_idx] = 0
    for one, two in pairs:
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", list(LAYERS))
def test_in_evaluation_the_lite_form_is_the_plain_layer_of_its_moving_average(kind):
    layer, inputs = made(kind, lite=True)
    gates = naive_gates(layer, inputs).detach()
    for _ in range(3):
        layer(inputs)
    average = torch.full((EXPERTS,), 1 / EXPERTS)
    for _ in range(3):
        average = (1 - MOMENTUM) * average + MOMENTUM * gates.mean(0)
    torch.testing.assert_close(layer.experts.mean_gates, average)
    assert not layer.experts.mean_gates.requires_grad and layer.experts.mean_gates.grad_fn is None
    expected = naive(layer, inputs, average.expand(len(inputs), -1)).detach()
    torch.testing.assert_close(layer.eval()(inputs), expected, rtol=1e-4, atol=1e-5)
    plain = type(layer).__mro__[2]
    assert torch.equal(plain.forward(layer, inputs), layer(inputs)) and kind_of(layer) is plain


@pytest.mark.parametrize("kind", list(LAYERS))
def test_merging_the_alignment_changes_no_output(kind):
    layer, inputs = made(kind, lite=False)
    expected = layer.eval()(inputs)
    layer.experts.merge_alignment()
    assert (layer.experts.alignment is None) == (kind != "ids")
    torch.testing.assert_close(layer(inputs), expected)


@pytest.mark.parametrize("kind", list(LAYERS))
def test_a_layer_starts_as_the_mean_of_its_sources(kind):
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    sources = [make() for _ in range(EXPERTS)]
    layer = copy.deepcopy(sources[0])
    experts = Experts(layer, [dict(source.state_dict()) for source in sources], lite=False, align=True)
    reclass(layer, ZooLayer, experts=experts, sidecar=Reads())
    inputs = IDS if shape is None else torch.randn(shape)
    torch.testing.assert_close(experts.gates(torch.randn(9, zoo_layers.input_width(layer))).sum(1), torch.ones(9))
    expected = sum(source(inputs) for source in sources) / EXPERTS
    torch.testing.assert_close(layer(inputs), expected, rtol=1e-4, atol=1e-5)


def test_without_alignment(monkeypatch):
    layer, inputs = made("images", lite=False, align=False)
    assert layer.experts.alignment is None
    torch.testing.assert_close(layer(inputs), naive(layer, inputs, naive_gates(layer, inputs)), rtol=1e-4, atol=1e-5)


def test_the_cheaper_way_is_chosen():
    layer, _ = made("tokens", lite=False)
    cheaper = zoo_layers.per_row_is_cheaper
    assert not cheaper(layer, 8, 1) and cheaper(layer, 8, 2) and cheaper(layer, 8, 196)
    assert not cheaper(layer, zoo_layers.LARGEST_KERNELS, 196), "kernels of all rows would not fit"


def test_padding_is_not_pooled():
    states, mask = torch.randn(2, 3, 5), torch.tensor([[1, 1, 0], [1, 0, 0]])
    expected = torch.stack([states[0, :2].mean(0), states[1, 0]])
    torch.testing.assert_close(pooled_tokens(states, mask), expected)
    torch.testing.assert_close(pooled_tokens(states, mask[:1]), states.mean(1))
    assert math.isfinite(pooled_tokens(states, mask * 0).sum())
