import math
from dataclasses import replace

import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.domain_adaptation.dann import DANN


def naive_loss(discriminator, view):
    probability = discriminator(view.features).sigmoid()
    source = [-p.log() for p, d in zip(probability, view.domain) if d == 0]
    target = [-(1 - p).log() for p, d in zip(probability, view.domain) if d == 1]
    return (sum(source) / len(source) + sum(target) / len(target)) / 2


def test_value_and_gradients_against_the_formula(make_view):
    torch.manual_seed(0)
    objective = DANN(hidden_size=16, max_reversal=0.7)
    objective.build(BuildContext(None, feature_dim=7, num_labels=4))
    view, naive_view = make_view(progress=0.3), make_view(progress=0.3)
    objective(view).backward()
    descent = [p.grad.clone() for p in objective.parameters()]
    objective.zero_grad()
    expected = naive_loss(objective.discriminator, naive_view)
    expected.backward()
    assert objective(view).item() == pytest.approx(expected.item(), abs=1e-6)
    coefficient = 0.7 * math.tanh(10 * 0.3 / 2)
    torch.testing.assert_close(view.features.grad, -coefficient * naive_view.features.grad)
    for got, parameter in zip(descent, objective.parameters()):
        torch.testing.assert_close(got, parameter.grad)


def test_features_are_left_alone_at_the_start(make_view):
    objective = DANN(hidden_size=16)
    objective.build(BuildContext(None, 7, 4))
    view = make_view(progress=0.0)
    objective(view).backward()
    assert view.features.grad.abs().max() == 0


def test_the_discriminator_learns_to_tell_distant_domains(make_view):
    torch.manual_seed(0)
    objective = DANN(hidden_size=16)
    objective.build(BuildContext(None, 7, 4))
    view = make_view(16, 16)
    view = replace(view, features=(view.features + 5.0 * view.domain.unsqueeze(1)).detach())
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-2)
    for _ in range(10):
        optimizer.zero_grad()
        loss = objective(view)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


@pytest.mark.parametrize(("num_source", "num_target"), [(4, 0), (0, 4)])
def test_one_domain_alone_gives_no_loss(make_view, num_source, num_target):
    objective = DANN(hidden_size=16)
    objective.build(BuildContext(None, 7, 4))
    assert objective(make_view(num_source, num_target)).item() == 0


@pytest.mark.parametrize("keyword", ["hidden_size", "max_reversal", "warm_start"])
def test_an_invalid_keyword_raises(keyword):
    with pytest.raises(ValueError, match=f"`{keyword}` should be positive"):
        DANN(**{keyword: 0})
    with pytest.raises(TypeError):
        DANN(hidden=16)
