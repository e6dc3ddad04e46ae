import copy
import math

import pytest
import torch
from torch import nn

from hf_transfer.core.objective import BuildContext
from hf_transfer.pretraining.moco_v3 import MoCoV3, cosine_momentum
from tests import tiny
from tests.pretraining.blocks.test_info_nce import naive
from tests.pretraining.conftest import features_of, view_of

SMALL = {"projection_dim": 5, "hidden_size": 8, "momentum": 0.9}


@pytest.fixture
def built(context):
    torch.manual_seed(1)
    objective = MoCoV3(**SMALL)
    objective.build(context)
    return objective


def test_value_and_gradient_against_the_formula(built, backbone, pictures):
    """With keys of another model than that in training: the start, while the model has moved on."""
    start = copy.deepcopy(backbone)
    key_projector = copy.deepcopy(built.projector)
    with torch.no_grad():
        for value in (*backbone.parameters(), *built.projector.parameters()):
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))
    model, head = copy.deepcopy(backbone), copy.deepcopy(nn.Sequential(built.projector, built.predictor))
    loss = built(view_of(backbone, pictures))
    loss.backward()
    first, second = (head(features_of(model, one)) for one in pictures)
    with torch.no_grad():
        first_key, second_key = (key_projector(features_of(start, one)) for one in pictures)
    expected = 2 * 0.2 * (naive(first, second_key, 0.2) + naive(second, first_key, 0.2))
    torch.testing.assert_close(loss, expected)
    expected.backward()
    for value, same in zip(
        (*backbone.parameters(), *built.projector.parameters()), (*model.parameters(), *head[0].parameters())
    ):
        torch.testing.assert_close(value.grad, same.grad, rtol=1e-3, atol=1e-5)
    assert all(value.grad is None for value in (*built.key_encoder.parameters(), *built.key_projector.parameters()))


def test_the_momentum_grows_to_one():
    assert cosine_momentum(0.99, 0.0) == pytest.approx(0.99) and cosine_momentum(0.99, 1.0) == 1.0
    assert cosine_momentum(0.9, 0.3) == pytest.approx(1 - 0.5 * (1 + math.cos(0.3 * math.pi)) * 0.1)


@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_the_keys_follow_by_the_momentum_of_the_progress(built, backbone, pictures, progress):
    start = copy.deepcopy([*backbone.parameters(), *built.projector.parameters()])
    built(view_of(backbone, pictures, progress))
    with torch.no_grad():
        for value in (*backbone.parameters(), *built.projector.parameters()):
            value.add_(1.0)
    built.after_step(backbone)
    for value, before in zip((*built.key_encoder.parameters(), *built.key_projector.parameters()), start):
        torch.testing.assert_close(value, before + 1 - cosine_momentum(0.9, progress))


def test_the_heads(context):
    vit, resnet = MoCoV3(), MoCoV3(temperature=1.0, projector_layers=2, predictor_norm=False)
    for objective in (vit, resnet):
        objective.build(context)
    linears = [[layer for layer in head if isinstance(layer, nn.Linear)] for head in (vit.projector, vit.predictor)]
    assert [[layer.out_features for layer in one] for one in linears] == [[4096, 4096, 256], [4096, 256]]
    assert isinstance(vit.predictor[-1], nn.BatchNorm1d) and isinstance(resnet.predictor[-1], nn.Linear)
    assert sum(isinstance(layer, nn.Linear) for layer in resnet.projector) == 2


def test_patches_stay_as_they_start():
    model = tiny.vit().vit
    MoCoV3(**SMALL, freeze_patches=True).build(BuildContext(model, 16, None))
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert frozen == {
        "embeddings.patch_embeddings.projection.weight",
        "embeddings.patch_embeddings.projection.bias",
    }
    with pytest.raises(ValueError, match="`freeze_patches` is for models that embed patches, and a ResNetModel"):
        MoCoV3(**SMALL, freeze_patches=True).build(BuildContext(tiny.resnet().resnet, 16, None))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("temperature", 0), ("momentum", 1), ("projection_dim", 0), ("hidden_size", 0), ("projector_layers", 0)],
)
def test_an_invalid_keyword_raises(keyword, value):
    with pytest.raises(ValueError, match=f"`{keyword}` should be"):
        MoCoV3(**{keyword: value})
