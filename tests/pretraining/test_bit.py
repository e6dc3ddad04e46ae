import copy
import json

import pytest
import torch
from peft import AutoPeftModel
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    ResNetForImageClassification,
)
from transformers.models.auto.auto_factory import _LazyAutoMapping
from transformers.models.bit.modeling_bit import WeightStandardizedConv2d

from hf_transfer.models.group_normed import Standardised, change_norms, largest_divisor
from hf_transfer.pretraining.bit import convert
from hf_transfer.runs.models import load_model, with_adapter
from hf_transfer.tasks.arguments import ModelArguments
from tests import tiny


def pixels(rows: int = 3, size: int = tiny.IMAGE_SIZE) -> torch.Tensor:
    return torch.randn(rows, 1, size, size, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Convolution, norm: the smallest net."""

    def __init__(self, channels: int = 12, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(4, channels, 3, bias=False, groups=groups)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, states):
        return self.norm(self.conv(states))


class Own(ResNetForImageClassification):
    """A class that the Auto classes do not know."""


def by_hand(states, weight, gamma, beta, groups, weight_eps):
    """The formula, filter by filter and group by group."""
    filters = [(one - one.mean()) / (one.var(correction=0) + weight_eps).sqrt() for one in weight]
    maps = nn.functional.conv2d(states, torch.stack(filters))
    rows = []
    for row in maps:
        parts = [(g - g.mean()) / (g.var(correction=0) + 1e-5).sqrt() for g in row.chunk(groups)]
        rows.append(torch.cat(parts) * gamma[:, None, None] + beta[:, None, None])
    return torch.stack(rows)


def test_value_and_gradient_against_the_formula():
    torch.manual_seed(0)
    net = Net().double()
    with torch.no_grad():
        net.norm.weight.normal_()
        net.norm.bias.normal_()
    states, towards = torch.randn(3, 4, 6, 6).double(), torch.randn(3, 12, 4, 4).double()
    parameters = net.conv.weight, net.norm.weight, net.norm.bias
    change_norms(net, 4, 0.1)
    expected = by_hand(states, *parameters, 4, 0.1)
    # the library works in float32 on the weights
    torch.testing.assert_close(net(states), expected, atol=1e-5, rtol=1e-5)
    gradients = torch.autograd.grad((net(states) * towards).sum(), parameters)
    for ours, formula in zip(gradients, torch.autograd.grad((expected * towards).sum(), parameters)):
        torch.testing.assert_close(ours, formula, atol=1e-4, rtol=1e-4)


def test_the_convolution_is_that_of_transformers_bit():
    torch.manual_seed(0)
    theirs = WeightStandardizedConv2d(4, 12, 3, padding=None, eps=1e-8)
    net = Net()
    change_norms(net, 32, 1e-8)
    net.conv.weight = nn.Parameter(theirs.weight.detach().clone())
    net.conv.padding = theirs.padding
    states = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(net.conv(states), theirs(states))
    net.conv(states).square().sum().backward()
    theirs(states).square().sum().backward()
    torch.testing.assert_close(net.conv.weight.grad, theirs.weight.grad, atol=1e-3, rtol=1e-5)


def test_a_row_does_not_depend_on_the_rest_of_the_batch():
    model = convert(tiny.resnet()).train()
    rows = pixels()
    torch.testing.assert_close(model(rows).logits[:1], model(rows[:1]).logits)
    plain = tiny.resnet().train()
    assert not torch.allclose(plain(rows).logits[:1], plain(rows[:2]).logits[:1])


def test_a_conversion_imports_no_other_models(monkeypatch):
    monkeypatch.setattr(_LazyAutoMapping, "keys", lambda mapping: pytest.fail("all of transformers is imported"))
    convert(tiny.resnet())


def test_scale_and_shift_of_a_filter_change_nothing():
    model = convert(tiny.resnet()).eval()
    before = model(pixels()).logits
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Standardised):
                module.weight.mul_(3).add_(0.5)
    torch.testing.assert_close(model(pixels()).logits, before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("channels, groups", [(64, 32), (32, 32), (48, 24), (8, 8), (37, 1), (320, 32)])
def test_groups_divide_the_channels(channels, groups):
    assert largest_divisor(channels, 32) == groups


def test_what_is_converted_in_a_net_with_squeeze_and_excitation():
    model = convert(tiny.efficientnet())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            assert isinstance(module, Standardised) == ("squeeze_excite" not in name), name


@pytest.mark.parametrize("make", [tiny.resnet, tiny.efficientnet])
def test_the_saved_folder_loads_equal_and_again(tmp_path, make):
    torch.manual_seed(0)
    model = convert(make(), groups=4).eval()
    model.save_pretrained(tmp_path / "first")
    loaded, report = AutoModelForImageClassification.from_pretrained(tmp_path / "first", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(loaded(pixels()).logits, model(pixels()).logits)
    loaded.save_pretrained(tmp_path / "second")
    config = json.loads((tmp_path / "second" / "config.json").read_text())
    assert (config["model_type"], config["norm_groups"]) == ("group_normed", 4)
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "second", num_labels=10)
    assert torch.equal(again(pixels()).logits, model(pixels()).logits)
    backbone = AutoModel.from_pretrained(tmp_path / "first")
    inner = model.base_model(pixels()).last_hidden_state
    assert torch.equal(backbone(pixels()).last_hidden_state, inner)
    copied = copy.deepcopy(model)
    assert torch.equal(copied(pixels()).logits, model(pixels()).logits)
    assert isinstance(AutoModel.from_config(copied.config), type(backbone))


def test_transformers_alone_refuses_the_folder(tmp_path, monkeypatch):
    """A plain class would run batch norms on the same weights."""
    convert(tiny.resnet()).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).plain_model_type == "resnet"
    monkeypatch.delitem(CONFIG_MAPPING._extra_content, "group_normed")  # as it is without hf_transfer
    with pytest.raises(ValueError, match="group_normed"):
        AutoConfig.from_pretrained(tmp_path)


def test_the_plain_class_says_so(tmp_path):
    convert(tiny.resnet()).save_pretrained(tmp_path)
    _, report = ResNetForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert any("running_mean" in key for key in report["missing_keys"])


@pytest.mark.parametrize(
    "model, keywords, message",
    [
        (tiny.vit, {}, "`bit`: ViTForImageClassification has no batch norm"),
        (lambda: convert(tiny.resnet()), {}, "has group norms already"),
        (lambda: Own(tiny.resnet().config), {}, "no Auto class knows Own"),
        (tiny.resnet, {"groups": 0}, "`groups` should be positive"),
        (tiny.resnet, {"eps": -1.0}, "`eps` should be positive"),
    ],
)
def test_what_cannot_be_converted_is_refused(model, keywords, message):
    with pytest.raises(ValueError, match=message):
        convert(model(), **keywords)


def test_an_adapter_of_an_unsaved_conversion_is_refused(tmp_path):
    """Its folder would name the plain model as its base."""
    tiny.resnet().save_pretrained(tmp_path / "plain")
    arguments = ModelArguments(
        model=str(tmp_path / "plain"),
        task="image-classification",
        converters={"bit": {}},
        peft={"peft_type": "LN_TUNING", "target_modules": ["normalization"]},
    )
    with pytest.raises(ValueError, match="`bit` changes what .* give, .*adapt the saved folder"):
        load_model(arguments)
    convert(tiny.resnet()).save_pretrained(tmp_path / "converted")
    arguments.model, arguments.converters = str(tmp_path / "converted"), None
    assert load_model(arguments).peft_config


def test_an_adapter_of_the_norms_comes_back_and_one_of_the_convolutions_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    convert(tiny.resnet()).save_pretrained("base")
    adapted = with_adapter(
        load_model(ModelArguments(model="base")), {"peft_type": "LN_TUNING", "target_modules": ["normalization"]}
    )
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.eval().save_pretrained("adapter")
    found = AutoPeftModel.from_pretrained("adapter", num_labels=10, import_allowlist=["hf_transfer"]).eval()
    torch.testing.assert_close(found(pixel_values=pixels()).logits, adapted(pixel_values=pixels()).logits)
    for layers in ("all-linear", ["convolution"]):
        with pytest.raises(ValueError, match="standardise their weights, to which an adapter cannot add"):
            lora = {"peft_type": "LORA", "target_modules": layers}
            with_adapter(load_model(ModelArguments(model="base")), lora)
