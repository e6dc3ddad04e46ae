from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, TaskType, get_peft_model

from hf_transfer.task_adaptation.delta import DELTA, layer_widths
from tests import tiny


def states(seed, shape=(6, 4, 8)):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator).requires_grad_() for _ in range(2))


@pytest.fixture
def delta_view(make_view):
    mask = torch.ones(6, 4)
    mask[0, 2:] = 0

    def make(model, shape=(6, 4, 8), same=False):
        teacher = replace(make_view(), hidden_states=states(0 if same else 1, shape))
        return replace(
            make_view(model), hidden_states=states(0, shape), teacher=teacher, inputs={"attention_mask": mask}
        )

    return make


def test_value_and_gradient_against_the_formula(tiny_model, delta_view):
    objective = DELTA(alpha=0.3, beta=0.02)
    objective.build(tiny_model, 8, 3)
    weights = torch.rand(8, generator=torch.Generator().manual_seed(5)).softmax(0)
    objective.attention.get_buffer("1").copy_(weights)
    view, naive = delta_view(tiny_model), delta_view(tiny_model)
    loss = objective(view)
    loss.backward()
    expected = 0.0
    for layer in range(2):
        w = weights if layer == 1 else torch.full((8,), 1 / 8)
        for b in range(6):
            real = 2 if b == 0 else 4
            gap = naive.hidden_states[layer][b, :real] - naive.teacher.hidden_states[layer][b, :real].detach()
            expected = expected + 0.3 / 2 * sum(8 * w[c] * (gap[:, c] ** 2).mean() for c in range(8)) / 6
    expected.backward()
    for got, want in zip(view.hidden_states, naive.hidden_states):
        torch.testing.assert_close(got.grad, want.grad)
    head = tiny_model.classifier
    penalty = 0.02 / 2 * (head.weight.square().sum() + head.bias.square().sum())
    torch.testing.assert_close(loss, expected + penalty)
    torch.testing.assert_close(head.weight.grad, 0.02 * head.weight.detach())


def test_the_start_costs_only_the_head(tiny_model, delta_view):
    objective = DELTA(beta=0.0)
    objective.build(tiny_model, 8, 3)
    assert objective(delta_view(tiny_model, same=True)).item() == 0


def test_maps_are_read_by_channel(tiny_model, delta_view):
    objective = DELTA(alpha=2.0, beta=0.0)
    objective.build(tiny_model, 8, 3)
    view = delta_view(tiny_model, shape=(6, 8, 3, 5))
    gaps = [a - b for a, b in zip(view.hidden_states, view.teacher.hidden_states)]
    expected = sum(gap.square().mean(dim=(2, 3)).sum(1).mean() for gap in gaps)
    torch.testing.assert_close(objective(view), expected)


def test_the_attention_is_what_losing_a_channel_costs(tiny_model):
    """Against differences: the loss with one channel of the last layer shrunk by a hundredth, in that unit."""
    with torch.no_grad():
        tiny_model.classifier.weight.mul_(20)
    generator = torch.Generator().manual_seed(1)
    batch = {
        "input_ids": torch.randint(20, (6, 5), generator=generator),
        "labels": torch.tensor([0, 1, 2, -100, 1, 0]),
    }
    objective = DELTA(attention_temperature=0.02)
    objective.build(tiny_model, 8, 3)
    objective.prepare(tiny_model, [batch])
    known = batch["labels"] != -100
    outputs = tiny_model(input_ids=batch["input_ids"][known], output_hidden_states=True)

    def loss_without(channel):
        last = outputs.hidden_states[-1].detach().clone()
        if channel is not None:
            last[:, :, channel] *= 1 - 1e-2
        return F.cross_entropy(tiny_model.classifier(tiny_model.bert.pooler(last)), batch["labels"][known]).item()

    with torch.no_grad():
        costs = torch.tensor([(loss_without(channel) - loss_without(None)) / 1e-2 for channel in range(8)])
    expected = (costs / 0.02).softmax(0)
    torch.testing.assert_close(objective.attention.get_buffer("1"), expected, atol=0.02, rtol=0.1)
    assert expected.max() - expected.min() > 0.05


def test_with_lora_every_layer_is_measured(tiny_model):
    model = get_peft_model(tiny_model, LoraConfig(task_type=TaskType.SEQ_CLS, target_modules=["query"], r=2))
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    objective = DELTA(attention_temperature=1e-3)
    objective.build(model, 8, 3)
    objective.prepare(model, [{"input_ids": torch.arange(10).reshape(2, 5), "labels": torch.tensor([0, 1])}])
    for layer in range(2):
        assert objective.attention.get_buffer(str(layer)).std() > 0
    assert frozen == [name for name, p in model.named_parameters() if not p.requires_grad]


def of_config(**config):
    return SimpleNamespace(config=SimpleNamespace(**config))


def test_widths_of_layers_and_stages():
    assert layer_widths(of_config(hidden_size=8, num_hidden_layers=2)) == [8, 8, 8]
    assert layer_widths(of_config(embedding_size=4, hidden_sizes=[8, 16])) == [4, 8, 16]
    assert layer_widths(of_config(hidden_sizes=[8, 16])) == [8, 8, 16]
    with pytest.raises(ValueError, match="widths of all layers"):
        layer_widths(of_config(hidden_size=8))


def test_widths_that_the_config_does_not_tell():
    model = tiny.efficientnet()
    widths = layer_widths(model)
    states = model(torch.rand(2, 1, 28, 28), output_hidden_states=True).hidden_states
    assert widths == [state.shape[1] for state in states] and len(set(widths)) > 2
    assert model.training


@pytest.mark.parametrize("keywords", [{"alpha": -1}, {"beta": -1}, {"attention_temperature": 0}, {"samples": 0}])
def test_an_invalid_keyword_raises(keywords):
    with pytest.raises(ValueError, match=next(iter(keywords))):
        DELTA(**keywords)
