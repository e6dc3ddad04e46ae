"""RegDA's terms against the formula, and which parameters each moves."""

from types import SimpleNamespace

import pytest
import torch

from hf_transfer.core.heat_maps import gaussian_maps, likeliest_places
from hf_transfer.core.objective import BuildContext, View
from hf_transfer.domain_adaptation.regda import RegDA, wrong_maps
from hf_transfer.modeling.readouts import choose_readout
from tests import tiny


def make_view(seed=0, rows=(0, 1, 1)) -> View:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(rows), 5, 6, 6, generator=generator).requires_grad_()
    maps = 3 * torch.randn(len(rows), 3, 6, 6, generator=generator)
    labels = torch.rand(len(rows), 3, 2, generator=generator)
    labels[0, 2] = -100  # not seen
    labels[1:] = -100
    outputs = {"heatmaps": maps, "features": features}
    return View(labels=labels.flatten(1), domain=torch.tensor(rows), outputs=outputs, progress=0.5)


def made(**keywords) -> RegDA:
    torch.manual_seed(0)
    objective = RegDA(**{"hidden_size": 4, **keywords})
    objective.build(BuildContext(SimpleNamespace(), 5, 6))
    return objective


def divergence(scores, target):
    return -(target * scores.flatten().log_softmax(0).reshape(scores.shape)).sum()


def naive(objective, view, features_move, head_moves):
    """The terms, of which one part or the other is held: what a gradient of each may reach."""
    maps, features, head = view.outputs["heatmaps"], view.outputs["features"], objective.adversarial_head
    points = view.labels.reshape(-1, 3, 2)
    source = [divergence(head(features[:1])[0, k], gaussian_maps(points[0, k], (6, 6), 1.5)) for k in range(2)]
    departs, returns = [], []
    for row in (1, 2):
        told = gaussian_maps(likeliest_places(maps[row])[:, :2], (6, 6), 1.5)
        wrong = wrong_maps(told.unsqueeze(0))[0]
        answers = head(features[row : row + 1])[0]
        departs += [divergence(answers[k], wrong[k]) for k in range(3)]
        returns += [divergence(answers[k], told[k]) for k in range(3)]
    parts = [4 * sum(source) / 2]
    parts += [sum(departs) / 6] if head_moves else []
    parts += [sum(returns) / 6] if features_move else []
    return sum(parts)


def test_value_and_gradients_against_the_formula():
    objective, view, other = made(), make_view(), make_view()
    loss = objective(view)
    loss.backward()
    mine = [parameter.grad.clone() for parameter in objective.parameters()]
    assert loss.item() == pytest.approx(naive(objective, other, True, True).item(), abs=1e-5)
    objective.zero_grad()
    naive(objective, other, False, True).backward()
    assert all(torch.allclose(a, p.grad, atol=1e-5) for a, p in zip(mine, objective.parameters(), strict=True))
    other = make_view()
    naive(objective, other, True, False).backward()
    assert torch.allclose(view.outputs["features"].grad, other.outputs["features"].grad, atol=1e-6)


def test_wrong_places_are_those_of_the_other_points():
    told = gaussian_maps(torch.tensor([[[0.1, 0.1], [0.9, 0.9]]]), (10, 10), 0.7)
    wrong = wrong_maps(told)
    assert torch.allclose(wrong.sum(dim=(-2, -1)), torch.ones(1, 2))
    assert torch.allclose(wrong[0, 0], told[0, 1], atol=1e-4) and torch.allclose(wrong[0, 1], told[0, 0], atol=1e-4)
    same = gaussian_maps(torch.tensor([[[0.5, 0.5], [0.5, 0.5]]]), (4, 4), 1.0)
    assert torch.isfinite(wrong_maps(same)).all()  # nothing else to be taken for


def test_a_batch_of_one_domain_gives_nothing():
    assert made()(make_view(rows=(1, 1, 1))) == 0


def test_wrong_keywords_and_models_are_refused():
    with pytest.raises(ValueError, match="`margin` should be"):
        RegDA(margin=0)
    model = tiny.vit()
    with pytest.raises(ValueError, match="RegDA needs a model with heat maps"):
        RegDA().build(BuildContext(model, 8, 6, choose_readout(model)))
