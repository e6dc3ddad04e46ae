"""Side-tuning against its formula, and what the side network is made of."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from hf_transfer.modeling.anatomy import backbone_of
from hf_transfer.models.flowformer import FlowformerConfig, FlowformerForTimeSeriesClassification
from hf_transfer.training.transfer_model import TransferModel
from hf_transfer.tuners.side import Borrowed, SideConfig, SideLayer, keep_first_layers, side_network
from tests import tiny
from tests.tuners.conftest import adapted_model, base_model, inputs_for, logits, shake


class Twice(nn.Module):
    """A backbone that gives one tensor."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    def forward(self, x):
        return self.layers(x)


def test_the_blend_follows_the_formula():
    torch.manual_seed(0)
    layer = SideLayer(Twice().requires_grad_(False), "default", SideConfig(initial_alpha=0.8)).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    side = layer.side_tuner_networks["default"]
    alpha = layer.side_tuner_alpha["default"]
    nn.init.normal_(side.layers[0].weight)
    base = layer.base_layer(x)
    share = 1 / (1 + torch.exp(-alpha))
    assert share.item() == pytest.approx(0.8)
    expected = share * base + (1 - share) * side(x)
    assert torch.allclose(layer(x), expected, atol=1e-12)
    (gradient,) = torch.autograd.grad(layer(x).sum(), alpha)
    assert gradient.item() == pytest.approx((share * (1 - share) * (base - side(x)).sum()).item())


def test_features_before_the_head_are_blended():
    model, inputs = adapted_model("bert", "side", with_head=False), inputs_for("bert")
    shake(model)
    plain, layer = base_model("bert"), model.base_model.model.bert
    alpha = torch.sigmoid(layer.side_tuner_alpha["default"])
    with torch.no_grad():
        one, other = plain.bert(**inputs), layer.side_tuner_networks["default"](**inputs)
        blended, output = layer(**inputs), layer(**inputs, return_dict=False)
        for name in ("last_hidden_state", "pooler_output"):
            assert torch.allclose(blended[name], alpha * one[name] + (1 - alpha) * other[name], atol=1e-6)
        expected = plain.classifier(alpha * one.pooler_output + (1 - alpha) * other.pooler_output)
    assert torch.allclose(logits(model, inputs), expected, atol=1e-6)
    assert torch.equal(output[0], blended.last_hidden_state) and torch.equal(output[1], blended.pooler_output)


def test_the_backbone_rests():
    torch.manual_seed(0)
    model = get_peft_model(tiny.bert(hidden_dropout_prob=0.5), SideConfig()).train()
    layer, inputs = model.base_model.model.bert, inputs_for("bert")
    assert not layer.base_layer.training and layer.side_tuner_networks["default"].training
    seen = []
    layer.base_layer.register_forward_hook(lambda module, args, output: seen.append(output.last_hidden_state))
    for _ in range(2):
        model(**inputs)
    assert torch.equal(*seen) and not seen[0].requires_grad
    with torch.no_grad():
        assert not torch.equal(model(**inputs).logits, model(**inputs).logits)


def test_the_side_network_is_small_and_borrows_tables():
    model = base_model("bert")
    network = side_network(model.bert, layers=1)
    assert len(network.encoder.layer) == 1 and len(model.bert.encoder.layer) == 2
    assert isinstance(network.embeddings.word_embeddings, Borrowed)
    assert not [name for name in network.state_dict() if "_embeddings" in name]
    assert torch.equal(network.encoder.layer[0].output.dense.weight, model.bert.encoder.layer[0].output.dense.weight)
    tables = model.bert.embeddings
    clone = copy.deepcopy(nn.ModuleDict({"base": model.bert, "side": network}))
    owner = clone["side"].embeddings.word_embeddings.weight
    assert owner is clone["base"].embeddings.word_embeddings.weight is not tables.word_embeddings.weight


def test_a_borrowed_module_tells_what_its_owner_tells():
    network = side_network(base_model("bert").bert, layers=1)
    assert network.embeddings.word_embeddings.num_embeddings == tiny.bert().config.vocab_size
    with pytest.raises(AttributeError, match="nothing"):
        _ = network.embeddings.word_embeddings.nothing


def test_a_model_that_checks_its_tables_gets_a_side_network():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = FlowformerConfig(modality="time_series", num_input_channels=3, **sizes, num_labels=3)
    model = get_peft_model(FlowformerForTimeSeriesClassification(config), SideConfig(side_layers=1))
    assert model(past_values=torch.randn(2, 7, 3)).logits.shape == (2, 3)


def test_every_stage_keeps_its_first_layers():
    def stage(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(), nn.ReLU())

    network = nn.Module()
    network.stages = nn.ModuleList([stage(3), stage(5)])
    keep_first_layers(network, 1)
    assert [[type(layer).__name__ for layer in one] for one in network.stages] == [["Linear"] * 2 + ["ReLU"] * 2] * 2
    assert network.stages[1][0].in_features == 5
    deep = nn.Module()
    deep.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(5)])
    keep_first_layers(deep, 3)
    assert len(deep.layers) == 3


def test_further_networks_and_copies():
    model = adapted_model("flowformer", "side")
    layer = backbone_of(model)
    assert isinstance(layer, SideLayer)
    assert layer.get_input_embeddings() is layer.base_layer.get_input_embeddings()
    shake(model)
    wrapped = TransferModel(copy.deepcopy(model)).eval()
    assert torch.equal(logits(wrapped, inputs_for("flowformer")), logits(model, inputs_for("flowformer")))


def test_two_networks_cannot_share_a_cache():
    sizes = {"vocab_size": 100, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    config = GPT2Config(**sizes, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    model = get_peft_model(GPT2LMHeadModel(config), SideConfig(task_type="CAUSAL_LM")).eval()
    inputs = inputs_for("gpt2")
    with pytest.raises(ValueError, match="cannot share one cache of keys and values: pass `use_cache=False`"):
        model.generate(**inputs, max_new_tokens=2)
    assert model.generate(**inputs, max_new_tokens=2, use_cache=False).shape == (3, 9)


def test_wrong_settings():
    with pytest.raises(ValueError, match="`side_layers` should be positive, got 0"):
        SideConfig(side_layers=0)
    with pytest.raises(ValueError, match=r"`initial_alpha` should be in \(0, 1\), got 1"):
        SideConfig(initial_alpha=1)
