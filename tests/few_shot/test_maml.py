from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.few_shot.maml import MAML
from hf_transfer.functional.inner_loop import trainable
from tests import tiny

RATE = 0.5
LABELS = torch.tensor([7, 7, 3, 3, 7, 3, 3, 7])  # 2 classes, 2 support rows and 2 queries each


class Net(nn.Module):
    """A two-layer classifier whose answers look like a Hugging Face model's."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(num_labels=4)
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 4)

    def forward(self, rows):
        return SimpleNamespace(logits=self.last(torch.tanh(self.first(rows))))


@pytest.fixture
def setting():
    """(model, view of two episodes of two classes)."""
    torch.manual_seed(0)
    model = Net().double()
    rows, labels = torch.randn(16, 3, dtype=torch.float64), torch.cat([LABELS, LABELS + 1])
    return model, View(labels=labels, inputs={"rows": rows}, model=model)


def objective(model, **keywords) -> MAML:
    made = MAML(ways=2, shots=2, queries=2, episodes_per_batch=2, inner_learning_rate=RATE, **keywords)
    made.build(BuildContext(model, None, 4))
    return made


def naive(model, view, steps, first_order, moves):
    """Two episodes by hand on the matrices: classes 7 and 3 are 0 and 1, the first two outputs of the head."""

    def loss(weights, rows, targets):
        hidden = torch.tanh(rows @ weights[0].T + weights[1])
        return F.cross_entropy((hidden @ weights[2].T + weights[3])[:, :2], targets)

    total, targets = 0.0, torch.tensor([0, 0, 1, 1, 0, 1, 1, 0])
    for start in (0, 8):
        rows, weights = view.inputs["rows"][start : start + 8], list(model.parameters())
        for _ in range(steps):
            gradients = torch.autograd.grad(loss(weights, rows[:4], targets[:4]), weights, create_graph=True)
            gradients = [g.detach() if first_order else g for g in gradients]
            weights = [w - RATE * g if moves[k] else w for k, (w, g) in enumerate(zip(weights, gradients))]
        total = total + loss(weights, rows[4:], targets[4:]) / 2
    return total


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("adapts", ["all", ["last.*"]])
def test_value_and_gradient_against_the_formula(setting, first_order, steps, adapts):
    model, view = setting
    loss = objective(model, inner_steps=steps, first_order=first_order, adapts=adapts)(view)
    expected = naive(model, view, steps, first_order, [True] * 4 if adapts == "all" else [False, False, True, True])
    torch.testing.assert_close(loss, expected, check_dtype=False, rtol=1e-5, atol=1e-6)
    found, wanted = (torch.autograd.grad(one, list(model.parameters())) for one in (loss, expected))
    for got, want in zip(found, wanted):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_the_weights_themselves_stay(setting):
    model, view = setting
    before = {name: value.clone() for name, value in model.named_parameters()}
    objective(model)(view)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_the_exact_gradient_is_another_one(setting):
    model, view = setting
    exact, first = (
        torch.autograd.grad(objective(model, first_order=one)(view), model.first.weight)[0] for one in (False, True)
    )
    assert (exact - first).abs().max() > 1e-3


def test_which_weights_adapt():
    model = tiny.vit()
    names = {adapts: set(MAML(adapts=adapts).moving(model)) for adapts in ("all", "head", "norms")}
    assert names["all"] == set(trainable(model))
    assert names["head"] == {"classifier.weight", "classifier.bias"}
    assert names["norms"] and all("norm" in name for name in names["norms"])
    lora = tiny.with_lora(tiny.vit())
    assert set(MAML().moving(lora)) == {name for name, p in lora.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("attention", ["sdpa", "flow", "eager"])
def test_second_order_through_the_attentions_of_transformers(attention):
    """Against the difference quotient of the loss along the gradient."""
    torch.manual_seed(0)
    model = tiny.vit().double().eval()
    model.set_attn_implementation(attention)
    pixels = torch.randn(8, 1, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE, dtype=torch.float64)
    view = View(labels=LABELS, inputs={"pixel_values": pixels}, model=model)
    maml = MAML(ways=2, shots=2, queries=2, episodes_per_batch=1, inner_learning_rate=0.2, inner_steps=2)
    weights = list(trainable(model).values())
    gradients = torch.autograd.grad(maml(view), weights, allow_unused=True)
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients):
                weight += 0 if gradient is None else step * gradient
        values.append(maml(view).item())
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients):
                weight -= 0 if gradient is None else step * gradient
    slope = (values[0] - values[1]) / 2e-5
    assert slope == pytest.approx(sum(g.square().sum().item() for g in gradients if g is not None), rel=1e-2)


def test_what_cannot_be_learned_is_refused(setting):
    model, _ = setting
    with pytest.raises(ValueError, match="at least 5 classes, got num_labels=4"):
        MAML(ways=5).build(BuildContext(model, None, 4))
    with pytest.raises(ValueError, match="names no weight of the model that trains"):
        MAML(ways=2, adapts=["third.*"]).build(BuildContext(model, None, 4))
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="has no second derivative: .*first_order: true"):
        MAML(ways=2).build(BuildContext(model, None, 4))
    MAML(ways=2, first_order=True).build(BuildContext(model, None, 4))
    for keywords in ({"adapts": "feet"}, {"groups": "rows"}, {"inner_steps": 0}):
        with pytest.raises(ValueError, match=next(iter(keywords))):
            MAML(**keywords)
