import math

import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.domain_adaptation.dd import DD


def naive_loss(objective, view, margin):
    adversarial = objective.adversarial_head(view.features)
    gaps = [sum(abs(a - y) for a, y in zip(*rows)) / len(rows[0]) for rows in zip(adversarial, view.logits.detach())]
    source = [gap for gap, domain in zip(gaps, view.domain) if domain == 0]
    target = [gap for gap, domain in zip(gaps, view.domain) if domain == 1]
    return margin * sum(source) / len(source) - sum(target) / len(target)


def test_value_and_gradients_against_the_formula(make_view):
    torch.manual_seed(0)
    objective = DD(margin=2.0, hidden_size=16)
    objective.build(BuildContext(None, feature_dim=7, num_labels=2))
    view, naive_view = (make_view(num_labels=2, progress=0.3) for _ in range(2))
    loss = objective(view)
    loss.backward()
    descent = [p.grad.clone() for p in objective.parameters()]
    objective.zero_grad()
    expected = naive_loss(objective, naive_view, 2.0)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(view.features.grad, -0.1 * math.tanh(1.5) * naive_view.features.grad)
    for got, parameter in zip(descent, objective.parameters()):
        torch.testing.assert_close(got, parameter.grad)
    assert view.logits.grad is None


def test_one_domain_alone_gives_no_loss(make_view):
    objective = DD(hidden_size=16)
    objective.build(BuildContext(None, 7, 4))
    assert objective(make_view(0, 4)).item() == 0


def test_an_invalid_keyword_raises():
    with pytest.raises(ValueError, match="`margin` should be positive"):
        DD(margin=0)
    with pytest.raises(ValueError, match="`dropout`"):
        DD(dropout=1.0)
