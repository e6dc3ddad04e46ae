import math
from dataclasses import replace

import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.domain_adaptation.self_ensembling import EPS, SelfEnsembling, class_balance


@pytest.fixture
def token_view(make_view_pair):
    tokens = torch.randint(20, (11, 6), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return lambda model: replace(make_view_pair(), inputs=inputs, model=model)


def test_value_and_gradient_against_the_formula(tiny_model, token_view):
    with torch.no_grad():
        tiny_model.classifier.weight.mul_(20)
    view, naive = token_view(tiny_model), token_view(tiny_model)
    target = naive.domain == 1
    q = tiny_model(input_ids=naive.inputs["input_ids"]).logits.softmax(1)[target].detach()
    threshold = q.max(1).values.median().item()
    objective = SelfEnsembling(threshold=threshold, balance=0.3)
    objective.build(BuildContext(tiny_model, 8, 4))
    loss = objective(view)
    loss.backward()
    p = naive.views[0].logits[target].softmax(1)
    counted = [float(max(row) >= threshold) for row in q]
    assert 0 < sum(counted) < len(counted)
    consistency = sum(count * sum((a - b) ** 2 for a, b in zip(*rows)) / 4 for count, *rows in zip(counted, p, q))
    mean = p.mean(0) + EPS
    balance = sum(-0.25 * value.log() - 0.75 * (1 + 2 * EPS - value).log() for value in mean)
    expected = (consistency + 0.3 * sum(counted) * balance) / len(counted)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(view.views[0].logits.grad, naive.views[0].logits.grad)
    assert not any(parameter.requires_grad for parameter in objective.parameters())


def test_balanced_classes_cost_least():
    even = class_balance(torch.full((3, 4), 0.25)).item()
    assert even == pytest.approx(4 * -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), abs=1e-4)
    assert class_balance(torch.tensor([[0.7, 0.1, 0.1, 0.1]])).item() > even
    assert class_balance(torch.eye(4)).item() == pytest.approx(even)


def test_a_batch_without_target_rows_gives_no_loss(tiny_model, make_view_pair):
    objective = SelfEnsembling()
    objective.build(BuildContext(tiny_model, 8, 4))
    assert objective(make_view_pair(4, 0)).item() == 0


@pytest.mark.parametrize("keywords", [{"momentum": 1.0}, {"threshold": -0.1}, {"balance": -1}])
def test_an_invalid_keyword_raises(keywords):
    with pytest.raises(ValueError, match=next(iter(keywords))):
        SelfEnsembling(**keywords)
