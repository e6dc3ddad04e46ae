import copy

import pytest
import torch
from torch import nn

from hf_transfer.pretraining.simsiam import SimSiam, negative_cosine
from tests.pretraining.conftest import features_of, rows, view_of


@pytest.fixture
def built(context):
    torch.manual_seed(1)
    objective = SimSiam(projection_dim=6, hidden_size=3)
    objective.build(context)
    return objective


def naive(predictions, targets):
    cosines = [p @ z / (p.norm() * z.norm()) for p, z in zip(predictions, targets.detach())]
    return -sum(cosines) / len(cosines)


def test_value_and_gradient_against_the_formula(built, backbone, pictures):
    model, projector, predictor = copy.deepcopy([backbone, built.projector, built.predictor])
    loss = built(view_of(backbone, pictures))
    first, second = (projector(features_of(model, one)) for one in pictures)
    expected = 0.5 * naive(predictor(first), second) + 0.5 * naive(predictor(second), first)
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    mine = (*backbone.parameters(), *built.parameters())
    for value, same in zip(mine, (*model.parameters(), *projector.parameters(), *predictor.parameters())):
        torch.testing.assert_close(value.grad, same.grad, rtol=1e-3, atol=1e-5)


def test_no_gradient_reaches_the_targets():
    predictions, targets = rows(4, 5, 0).requires_grad_(), rows(4, 5, 1).requires_grad_()
    negative_cosine(predictions, targets).backward()
    assert predictions.grad.abs().sum() > 0 and targets.grad is None
    assert negative_cosine(targets, targets).item() == pytest.approx(-1)


def test_it_is_the_loss_of_lightly(lightly):
    theirs = lightly("loss.negative_cosine_similarity").NegativeCosineSimilarity()
    first, second = rows(6, 8, 0), rows(6, 8, 1)
    torch.testing.assert_close(negative_cosine(first, second), theirs(first, second), rtol=1e-6, atol=1e-6)


def test_the_heads_are_the_papers(context):
    objective = SimSiam()
    objective.build(context)
    widths = [[layer.out_features for layer in head if isinstance(layer, nn.Linear)] for head in objective.children()]
    assert widths == [[16, 16, 2048], [512, 2048]]
    assert objective.projector[-1].weight is None and isinstance(objective.predictor[-1], nn.Linear)


@pytest.mark.parametrize(("keyword", "value"), [("projection_dim", 0), ("hidden_size", 0), ("layers", 0)])
def test_an_invalid_keyword_raises(keyword, value):
    with pytest.raises(ValueError, match=f"`{keyword}` should be"):
        SimSiam(**{keyword: value})
