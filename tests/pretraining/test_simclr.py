import copy

import pytest
import torch

from hf_transfer.core.objective import View
from hf_transfer.pretraining.simclr import SimCLR, nt_xent
from tests.pretraining.conftest import WIDTH, features_of, rows, view_of


def naive(first, second, temperature):
    """View by view: CE over the other half and the own half without itself, the mean over 2B views."""
    total, count = 0.0, len(first)
    for own, other in ((first, second), (second, first)):
        for place, view in enumerate(own):
            others = [*other, *(one for number, one in enumerate(own) if number != place)]
            cosines = [(view @ one / (view.norm() * one.norm()) / temperature).exp() for one in others]
            total = total - torch.log(cosines[place] / sum(cosines))
    return total / (2 * count)


def test_value_and_gradient_against_the_formula():
    got = [rows(5, 4, seed).requires_grad_() for seed in (0, 1)]
    plain = [one.detach().clone().requires_grad_() for one in got]
    loss, expected = nt_xent(*got, 0.3), naive(*plain, 0.3)
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    for one, other in zip(got, plain):
        torch.testing.assert_close(one.grad, other.grad)


def test_views_all_alike_cost_the_logarithm_of_their_number():
    assert nt_xent(torch.ones(4, 3), torch.ones(4, 3), 0.1).item() == pytest.approx(torch.tensor(7.0).log().item())


def test_it_is_the_loss_of_lightly(lightly):
    theirs = lightly("loss.ntx_ent_loss").NTXentLoss(temperature=0.1)
    first, second = rows(6, 8, 0), rows(6, 8, 1)
    torch.testing.assert_close(nt_xent(first, second, 0.1), theirs(first, second), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("keywords", "linears"), [({}, 2), ({"layers": 3, "hidden_size": 8}, 3)])
def test_the_objective_projects_both_views_together(context, backbone, pictures, keywords, linears):
    objective = SimCLR(projection_dim=5, **keywords)
    objective.build(context)
    assert sum(isinstance(layer, torch.nn.Linear) for layer in objective.projector) == linears
    start, projector = copy.deepcopy(backbone), copy.deepcopy(objective.projector)
    loss = objective(view_of(backbone, pictures))
    first, second = projector(torch.cat([features_of(start, one) for one in pictures])).split(8)
    expected = naive(first, second, 0.1)
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    for value, same in zip(backbone.parameters(), start.parameters()):
        torch.testing.assert_close(value.grad, same.grad, rtol=1e-3, atol=1e-5)


def test_a_row_alone_has_nothing_to_be_told_from(context):
    objective = SimCLR()
    objective.build(context)
    alone = View(rows(1, WIDTH, 0), views=(View(rows(1, WIDTH, 1)),))
    assert objective(alone) == 0


@pytest.mark.parametrize(
    ("keyword", "value"), [("temperature", 0), ("projection_dim", 0), ("layers", 0), ("hidden_size", 0)]
)
def test_an_invalid_keyword_raises(keyword, value):
    with pytest.raises(ValueError, match=f"`{keyword}` should be"):
        SimCLR(**{keyword: value})
