from dataclasses import replace

import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.domain_adaptation.mean_teacher import MeanTeacher


@pytest.fixture
def token_view(make_view_pair):
    tokens = torch.randint(20, (11, 6), generator=torch.Generator().manual_seed(0))
    return lambda model, **kwargs: replace(
        make_view_pair(**kwargs), inputs={"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, model=model
    )


@pytest.mark.parametrize("threshold", [0.0, 0.2515])
def test_value_and_gradient_against_the_formula(tiny_model, token_view, threshold):
    objective = MeanTeacher(threshold=threshold, ramp_until=0.5)
    objective.build(BuildContext(tiny_model, 8, 4))
    view, naive = token_view(tiny_model, progress=0.25), token_view(tiny_model, progress=0.25)
    loss = objective(view)
    loss.backward()
    target = naive.domain == 1
    q = tiny_model(input_ids=naive.inputs["input_ids"]).logits.softmax(1)[target].detach()
    p = naive.views[0].logits[target].softmax(1)
    terms = [sum((a - b) ** 2 for a, b in zip(*rows)) / 4 * float(max(rows[1]) >= threshold) for rows in zip(p, q)]
    expected = 0.5 * sum(terms) / len(terms)
    expected.backward()
    assert loss > 0
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(view.views[0].logits.grad, naive.views[0].logits.grad)
    assert not any(p.requires_grad for p in objective.parameters())


def test_the_teacher_follows_slowly(tiny_model):
    objective = MeanTeacher(momentum=0.6)
    objective.build(BuildContext(tiny_model, 8, 4))
    expected = tiny_model.classifier.weight.detach().clone()
    for momentum in (0.5, 0.6):
        with torch.no_grad():
            tiny_model.classifier.weight.add_(1.0)
        objective.after_step(tiny_model)
        expected = momentum * expected + (1 - momentum) * tiny_model.classifier.weight.detach()
        torch.testing.assert_close(objective.teacher.module.classifier.weight.detach(), expected)


def test_the_teacher_stays_in_evaluation_mode(tiny_model):
    objective = MeanTeacher()
    objective.build(BuildContext(tiny_model, 8, 4))
    assert objective.train().training and not objective.teacher.training


def test_a_batch_without_target_rows_gives_no_loss(tiny_model, make_view_pair):
    objective = MeanTeacher()
    objective.build(BuildContext(tiny_model, 8, 4))
    assert objective(make_view_pair(4, 0)).item() == 0


@pytest.mark.parametrize("keywords", [{"momentum": 1.0}, {"threshold": -0.1}, {"ramp_until": 0}])
def test_an_invalid_keyword_raises(keywords):
    with pytest.raises(ValueError, match=next(iter(keywords))):
        MeanTeacher(**keywords)
