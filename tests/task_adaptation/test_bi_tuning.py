import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.task_adaptation.bi_tuning import BiTuning, class_contrast
from hf_transfer.tuners.residual import ResidualConfig
from tests import tiny

CLASSES, KEYS, WIDTH = 3, 4, 8


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def naive_contrast(anchors, own, queue, labels, temperature):
    """Row by row and key by key."""
    total = 0.0
    for anchor, key, label in zip(anchors, own, labels.tolist()):
        keys = [(key, True)] + [(queue[c, k], c == label) for c in range(CLASSES) for k in range(KEYS)]
        norm = sum(torch.exp(anchor @ other / temperature) for other, _ in keys)
        positives = [torch.log(torch.exp(anchor @ other / temperature) / norm) for other, is_same in keys if is_same]
        assert len(positives) == KEYS + 1
        total = total - sum(positives) / (KEYS + 1)
    return total / len(anchors)


def test_value_and_gradient_against_the_formula():
    labels, queue = torch.tensor([0, 2, 2, 1, 0]), unit(CLASSES, KEYS, WIDTH, seed=3)
    got = [unit(5, WIDTH, seed=seed).requires_grad_() for seed in (1, 2)]
    naive = [x.detach().clone().requires_grad_() for x in got]
    loss, expected = class_contrast(*got, queue, labels, 0.3), naive_contrast(*naive, queue, labels, 0.3)
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    for x, y in zip(got, naive):
        torch.testing.assert_close(x.grad, y.grad)


def test_keys_all_alike_cost_the_logarithm_of_their_number():
    same = torch.ones(2, WIDTH) / WIDTH**0.5
    queue = (torch.ones(CLASSES, KEYS, WIDTH) / WIDTH**0.5).contiguous()
    loss = class_contrast(same, same, queue, torch.tensor([0, 1]), 0.07)
    assert loss.item() == pytest.approx(torch.tensor(1.0 + CLASSES * KEYS).log().item(), rel=1e-5)


@pytest.fixture
def built(tiny_model):
    objective = BiTuning(queue_size=KEYS, projection_dim=5, momentum=0.9)
    objective.build(BuildContext(tiny_model, WIDTH, CLASSES))
    return objective


def view_of(model, labels=(0, 2, 2, -100)):
    tokens = torch.arange(2 * 4 * 6).reshape(2, 4, 6) % 20
    outputs = model(input_ids=tokens[0], output_hidden_states=True)
    features = model.bert.pooler(outputs.hidden_states[-1])
    empty = torch.zeros(4, 0)
    copies = View(empty, empty, inputs={"input_ids": tokens[1]})
    return View(features, outputs.logits, torch.tensor(labels), views=(copies,), model=model)


def test_the_objective_joins_both_heads(built, tiny_model):
    """With the start as the key encoder; the row without a label counts nowhere."""
    view = view_of(tiny_model)
    loss = built(view)
    with torch.no_grad():
        keys = tiny_model.bert(input_ids=view.views[0].inputs["input_ids"]).pooler_output
    head = tiny_model.classifier
    classes = F.normalize(torch.cat([head.weight, head.bias[:, None]], dim=1), dim=1).detach()
    known, labels = view.features[:3], view.labels[:3]
    own = F.normalize(torch.cat([known, torch.ones(3, 1)], dim=1), dim=1)
    at_classifier = naive_contrast(classes[labels], own, built.feature_queue, labels, 0.07)
    queries, projected = (F.normalize(built.projector(x), dim=1) for x in (known, keys[:3]))
    at_projector = naive_contrast(queries, projected.detach(), built.projection_queue, labels, 0.07)
    torch.testing.assert_close(loss, at_classifier + at_projector, rtol=1e-4, atol=1e-4)
    loss.backward()
    assert built.projector.weight.grad.abs().sum() > 0 and tiny_model.bert.pooler.dense.weight.grad.abs().sum() > 0
    assert head.weight.grad is None and all(p.grad is None for p in built.key_model.parameters())


def test_the_classes_are_those_of_an_adapted_head(tiny_model):
    model = get_peft_model(tiny_model, LoraConfig(target_modules=["classifier"], r=2))
    head = tiny_model.classifier
    torch.nn.init.normal_(head.lora_B["default"].weight)
    objective = BiTuning(queue_size=KEYS, projection_dim=5)
    objective.build(BuildContext(model, WIDTH, CLASSES))
    merged = head.base_layer.weight + head.get_delta_weight("default")
    view = replace(view_of(tiny_model), model=model)
    loss = objective(view)
    plain = torch.nn.Linear(WIDTH, CLASSES)
    plain.weight, plain.bias = torch.nn.Parameter(merged.detach()), head.base_layer.bias
    tiny_model.classifier = plain
    torch.testing.assert_close(objective(replace(view, model=tiny_model)), loss)


def test_a_head_with_a_nonlinear_adapter_is_refused(tiny_model):
    model = get_peft_model(tiny_model, ResidualConfig(r=2, target_modules=["classifier"]))
    with pytest.raises(ValueError, match="Bi-Tuning reads the weights of the classifier"):
        BiTuning().build(BuildContext(model, WIDTH, CLASSES))


def test_the_newest_keys_replace_the_oldest_of_their_class_and_the_encoder_follows(built, tiny_model):
    start, before = built.feature_queue.clone(), copy.deepcopy(tiny_model.state_dict())
    view = view_of(tiny_model)
    with torch.no_grad():
        keys = tiny_model.bert(input_ids=view.views[0].inputs["input_ids"]).pooler_output
        keys = F.normalize(torch.cat([keys, torch.ones(4, 1)], dim=1), dim=1)
    built(view)
    assert torch.equal(built.feature_queue, start), "the queue changes after the step"
    with torch.no_grad():
        tiny_model.classifier.weight.add_(1.0)
        built.after_step(tiny_model)
    torch.testing.assert_close(built.feature_queue[0, 0], keys[0])
    torch.testing.assert_close(built.feature_queue[2, :2], keys[1:3])
    untouched = [built.feature_queue[0, 1:], built.feature_queue[1], built.feature_queue[2, 2:]]
    assert all(torch.equal(x, y) for x, y in zip(untouched, [start[0, 1:], start[1], start[2, 2:]]))
    assert built.places.tolist() == [1, 0, 2]
    moved = built.key_model.module.classifier.weight - before["classifier.weight"]
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1))
    built(view)
    built.after_step(tiny_model)
    built(view)
    built.after_step(tiny_model)
    assert built.places.tolist() == [3, 0, 2], "six keys wrap around a queue of four"


def test_keys_take_the_batch_norm_statistics_of_their_batch():
    """Running statistics belong to the present weights, not to the average that makes the keys."""
    torch.manual_seed(0)
    model = tiny.resnet(CLASSES).train()
    objective = BiTuning(queue_size=KEYS, projection_dim=5).train()
    objective.build(BuildContext(model, 16, CLASSES))
    pixels = torch.randn(4, 1, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
    keys = objective._keys(View(None, None, inputs={"pixel_values": pixels}))[0]
    with torch.no_grad():
        expected = model(pixels, output_hidden_states=True).hidden_states[-1].mean(dim=(2, 3))
    torch.testing.assert_close(keys, F.normalize(F.pad(expected, (0, 1), value=1.0), dim=1))
    resting = copy.deepcopy(model).eval()(pixels, output_hidden_states=True).hidden_states[-1].mean(dim=(2, 3))
    assert not torch.allclose(keys, F.normalize(F.pad(resting, (0, 1), value=1.0), dim=1), atol=1e-3)


@pytest.mark.parametrize(
    ("keyword", "value"), [("temperature", 0), ("queue_size", 0), ("momentum", 1), ("projection_dim", 0)]
)
def test_an_invalid_keyword_raises(keyword, value):
    with pytest.raises(ValueError, match=f"`{keyword}` should be"):
        BiTuning(**{keyword: value})


def test_a_regression_model_is_refused(tiny_model):
    with pytest.raises(ValueError, match="at least 2 classes"):
        BiTuning().build(BuildContext(tiny_model, WIDTH, 1))
