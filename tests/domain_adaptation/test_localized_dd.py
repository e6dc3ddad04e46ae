from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from hf_transfer.core.objective import BuildContext
from hf_transfer.domain_adaptation.localized_dd import LocalizedDD
from hf_transfer.functional.margin_disparity import margin_disparity_discrepancy


@pytest.fixture
def model_view(make_view, tiny_model):
    """A view whose logits are the tiny model's own head on the features."""

    def make(**kwargs):
        view = make_view(feature_dim=8, **kwargs)
        return replace(view, logits=tiny_model.classifier(view.features), model=tiny_model)

    return make


def built(**keywords):
    objective = LocalizedDD(**keywords)
    objective.build(BuildContext(None, feature_dim=8, num_labels=4))
    return objective


def test_the_adversary_starts_at_the_head_and_moves_along(model_view, tiny_model):
    objective, view = built(), model_view()
    torch.testing.assert_close(objective.adversary(view.features, tiny_model), view.logits)
    with torch.no_grad():
        tiny_model.classifier.weight.add_(1.0)
    torch.testing.assert_close(objective.adversary(view.features, tiny_model), tiny_model.classifier(view.features))


def test_the_adversary_starts_at_a_head_with_an_adapter(make_view, lora_on_the_head):
    view = make_view(feature_dim=8)
    logits = lora_on_the_head.get_base_model().classifier(view.features)
    adversarial = built().adversary(view.features, lora_on_the_head)
    torch.testing.assert_close(adversarial, logits)
    adversarial.sum().backward()
    assert all(parameter.grad is None for parameter in lora_on_the_head.parameters())


@pytest.mark.parametrize("radius", [0.01, 100.0])
def test_value_and_gradients_against_the_formula(model_view, tiny_model, radius):
    torch.manual_seed(1)
    objective = built(radius=radius, penalty=3.0, margin=2.0, max_reversal=1.0)
    torch.nn.init.normal_(objective.delta.weight)
    view, naive = model_view(progress=0.3), model_view(progress=0.3)
    loss = objective(view)
    loss.backward()
    descent = objective.delta.weight.grad.clone()
    objective.zero_grad()

    source, target = naive.domain == 0, naive.domain == 1
    weight, bias = tiny_model.classifier.weight.detach(), tiny_model.classifier.bias.detach()
    adversarial = naive.features @ (weight + objective.delta.weight).T + bias + objective.delta.bias
    disparity = margin_disparity_discrepancy(
        naive.logits[source], adversarial[source], naive.logits[target], adversarial[target], 2.0
    )
    risk = F.cross_entropy(adversarial[source], naive.labels[source])
    excess = 3.0 * torch.relu(risk - radius)
    torch.testing.assert_close(loss, excess - disparity)
    assert (excess > 0) == (radius < 1)
    (feature_gradient,) = torch.autograd.grad(-disparity, naive.features, retain_graph=True)
    coefficient = torch.tanh(torch.tensor(1.5))
    torch.testing.assert_close(view.features.grad, -coefficient * feature_gradient)
    (excess - disparity).backward()
    torch.testing.assert_close(descent, objective.delta.weight.grad)
    assert tiny_model.classifier.weight.grad is None


def estimate(source, target, tiny_model, make_view):
    """The localised discrepancy, its supremum followed with fixed features; 0 = none, 1 = total disagreement."""
    features = torch.cat([source, target])
    domain = (torch.arange(len(features)) >= len(source)).long()
    labels = torch.where(domain == 0, (features[:, 0] > 0).long(), -100)
    view = replace(
        make_view(), features=features, logits=tiny_model.classifier(features), labels=labels, domain=domain
    )
    view = replace(view, model=tiny_model)
    objective = built(radius=0.02, penalty=20.0)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        objective(view).backward()
        optimizer.step()
    adversarial = objective.adversary(features, tiny_model)
    disagrees = (adversarial.argmax(1) != view.logits.argmax(1)).float()
    return (disagrees[domain == 1].mean() - disagrees[domain == 0].mean()).item()


def test_the_estimate_is_asymmetric(make_view, tiny_model):
    """In A two cues agree, in B they are independent; the label is the sign of the first.

    From A, a hypothesis that uses the second cue fits the source and errs on B. From B, no good hypothesis uses it.
    """
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, (60, 8), generator=generator) * 2.0 - 1.0
    independent = torch.zeros(60, 8)
    independent[:, :2] = signs[:, :2]
    agreeing = independent.clone()
    agreeing[:, 1] = agreeing[:, 0]
    with torch.no_grad():
        tiny_model.classifier.weight.zero_()
        tiny_model.classifier.weight[1, 0], tiny_model.classifier.weight[0, 0] = 4.0, -4.0
        tiny_model.classifier.bias.copy_(torch.tensor([0.0, 0.0, -20.0, -20.0]))
    forth = estimate(agreeing, independent, tiny_model, make_view)
    back = estimate(independent, agreeing, tiny_model, make_view)
    assert forth > 0.3, "a hypothesis near the optimum of A should fail on about half of B"
    assert abs(back) < 0.05, "no hypothesis near the optimum of B fails on A"


def test_one_domain_alone_gives_no_loss(model_view):
    assert built()(model_view(num_source=0)).item() == 0


@pytest.mark.parametrize("keyword", ["radius", "penalty", "margin", "max_reversal", "warm_start"])
def test_an_invalid_keyword_raises(keyword):
    with pytest.raises(ValueError, match=f"`{keyword}` should be positive"):
        LocalizedDD(**{keyword: 0})


def test_a_regression_head_raises():
    with pytest.raises(ValueError, match="at least 2 classes"):
        LocalizedDD().build(BuildContext(None, 8, 1))
