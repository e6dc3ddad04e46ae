import math

import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.domain_adaptation.mdd import MDD
from hf_transfer.functional.margin_disparity import log_one_minus_probability, margin_disparity_discrepancy


def naive_disparity(source, source_adversarial, target, target_adversarial, margin):
    agreement = [-(a.softmax(0)[y.argmax()]).log() for y, a in zip(source, source_adversarial)]
    disagreement = [(1 - a.softmax(0)[y.argmax()]).log() for y, a in zip(target, target_adversarial)]
    return sum(disagreement) / len(disagreement) - margin * sum(agreement) / len(agreement)


def test_the_published_value(sines):
    value = margin_disparity_discrepancy(sines["y"], sines["ya"], sines["yt"], sines["yta"], margin=1.0)
    # The released code adds 1e-6 inside its logarithm, hence the tolerance.
    assert value.item() == pytest.approx(-1.739668, abs=2e-6)


def test_value_and_gradient_against_the_formula(sines):
    adversarial, naive = (
        [sines[k].clone().requires_grad_() for k in ("ya", "yta")],
        [sines[k].clone().requires_grad_() for k in ("ya", "yta")],
    )
    value = margin_disparity_discrepancy(sines["y"], adversarial[0], sines["yt"], adversarial[1], 4.0)
    expected = naive_disparity(sines["y"], naive[0], sines["yt"], naive[1], 4.0)
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    for got, want in zip(adversarial, naive):
        torch.testing.assert_close(got.grad, want.grad)


def test_the_complement_is_exact_where_the_probability_rounds_to_one():
    logits = torch.tensor([[80.0, 0.0]], requires_grad=True)
    value = log_one_minus_probability(logits, torch.tensor([0]))
    value.sum().backward()
    assert value.item() == pytest.approx(-80.0)
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 1.0]]))


def test_the_objective_reverses_the_features_only(make_view):
    torch.manual_seed(0)
    objective = MDD(margin=2.0, hidden_size=16, dropout=0.0)
    objective.build(BuildContext(None, feature_dim=7, num_labels=4))
    view, naive_view = make_view(progress=0.3), make_view(progress=0.3)
    loss = objective(view)
    loss.backward()
    descent = [p.grad.clone() for p in objective.parameters()]
    objective.zero_grad()
    adversarial = objective.adversarial_head(naive_view.features)
    s, t = naive_view.domain == 0, naive_view.domain == 1
    expected = -naive_disparity(naive_view.logits[s], adversarial[s], naive_view.logits[t], adversarial[t], 2.0)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(view.features.grad, -0.1 * math.tanh(1.5) * naive_view.features.grad)
    for got, parameter in zip(descent, objective.parameters()):
        torch.testing.assert_close(got, parameter.grad)
    assert view.logits.grad is None


def test_one_domain_alone_gives_no_loss(make_view):
    objective = MDD(hidden_size=16)
    objective.build(BuildContext(None, 7, 4))
    assert objective(make_view(0, 4)).item() == 0


@pytest.mark.parametrize("keyword", ["margin", "hidden_size", "max_reversal", "warm_start"])
def test_an_invalid_keyword_raises(keyword):
    with pytest.raises(ValueError, match=f"`{keyword}` should be positive"):
        MDD(**{keyword: 0})


def test_further_bad_input_raises():
    with pytest.raises(ValueError, match=r"`dropout` should be in \[0, 1\)"):
        MDD(dropout=1.0)
    with pytest.raises(ValueError, match="at least 2 classes"):
        MDD().build(BuildContext(None, 7, 1))
