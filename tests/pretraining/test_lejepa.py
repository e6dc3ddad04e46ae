import copy
import math

import pytest
import torch

from hf_transfer.pretraining import sigreg
from hf_transfer.pretraining.lejepa import LeJEPA, random_directions
from tests.pretraining.conftest import features_of, rows, view_of

SMALL = {"projection_dim": 5, "hidden_size": 8, "directions": 7}


def directions(width=5, count=7, seed=3):
    return random_directions(width, count, torch.Generator().manual_seed(seed))


def naive_sigreg(embeddings, along, knots=17, t_max=3.0):
    """Direction by direction and knot by knot, of embeddings [N, D]."""
    total, step = 0.0, t_max / (knots - 1)
    for direction in along.T:
        for number in range(knots):
            t = number * step
            weight = 2 * step * (0.5 if number in (0, knots - 1) else 1.0) * math.exp(-t * t / 2)
            angles = [t * (direction @ row) for row in embeddings]
            real = sum(torch.cos(one) for one in angles) / len(angles) - math.exp(-t * t / 2)
            imaginary = sum(torch.sin(one) for one in angles) / len(angles)
            total = total + weight * (real**2 + imaginary**2)
    return total * len(embeddings) / along.shape[1]


def test_value_and_gradient_of_sigreg_against_the_formula():
    got = rows(6, 5, 0).requires_grad_()
    plain = got.detach().clone().requires_grad_()
    loss, expected = sigreg(got, directions()), naive_sigreg(plain, directions())
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    torch.testing.assert_close(got.grad, plain.grad)


def test_a_gaussian_costs_little_and_a_point_much():
    along = directions(5, 200)
    gaussian, point = rows(500, 5, 0), torch.zeros(500, 5)
    assert 0.5 < sigreg(gaussian, along) < 3 and sigreg(point, along) > 100 and sigreg(3 * gaussian, along) > 20


def test_directions_have_unit_length():
    torch.testing.assert_close(directions().norm(dim=0), torch.ones(7))


def test_it_is_the_loss_of_lightly(lightly, monkeypatch):
    loss = lightly("loss.lejepa_loss")
    monkeypatch.setattr(loss.SIGReg, "_generate_unit_vectors", lambda *args, **kwargs: directions())
    views = torch.stack([rows(6, 5, 0), rows(6, 5, 1)])
    torch.testing.assert_close(sigreg(views, directions()), loss.SIGReg(num_vectors=7)(views), rtol=1e-6, atol=1e-6)
    agreement = loss.lejepa_invariance_loss(all_proj=views, global_proj=views)
    torch.testing.assert_close((views - views.mean(dim=0)).square().mean(), agreement, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("share", [0.05, 0.0, 1.0])
def test_the_objective_joins_agreement_and_spread(context, backbone, pictures, share):
    torch.manual_seed(1)
    objective = LeJEPA(gaussian_share=share, **SMALL)
    objective.build(context)
    model, projector = copy.deepcopy([backbone, objective.projector])
    loss = objective(view_of(backbone, pictures, progress=0.25))
    first, second = projector(torch.cat([features_of(model, one) for one in pictures])).split(8)
    centre = (first + second) / 2
    agreement = ((first - centre) ** 2).mean() / 2 + ((second - centre) ** 2).mean() / 2
    along = objective._directions(0.25)
    spread = naive_sigreg(first, along) / 2 + naive_sigreg(second, along) / 2
    expected = (1 - share) * agreement + share * spread
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    for value, same in zip(backbone.parameters(), model.parameters()):
        torch.testing.assert_close(value.grad, same.grad, rtol=1e-3, atol=1e-5)


def test_directions_are_new_at_every_step_and_depend_on_nothing_else():
    objective = LeJEPA(**SMALL)
    first = objective._directions(0.25)
    torch.rand(3)
    assert torch.equal(objective._directions(0.25), first)
    assert not torch.equal(objective._directions(0.5), first)
    assert not torch.equal(LeJEPA(**SMALL, seed=1)._directions(0.25), first)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("gaussian_share", 1.5), ("directions", 0), ("knots", 1), ("t_max", 0), ("projection_dim", 0), ("layers", 0)],
)
def test_an_invalid_keyword_raises(keyword, value):
    with pytest.raises(ValueError, match=f"`{keyword}` should be"):
        LeJEPA(**{keyword: value})
