import copy

import pytest
import torch
import torch.nn.functional as F

from hf_transfer.core.objective import BuildContext
from hf_transfer.modeling.readouts import Token
from hf_transfer.pretraining.moco import MoCo
from tests.pretraining.blocks.test_info_nce import naive
from tests.pretraining.conftest import WIDTH, features_of, view_of


@pytest.fixture
def built(context):
    torch.manual_seed(1)
    objective = MoCo(queue_size=12, projection_dim=5, momentum=0.9)
    objective.build(context)
    return objective


def test_value_and_gradient_against_the_formula(built, backbone, pictures):
    """The key is that of the second view by the start of model and projector; nothing flows through it."""
    start, projector = copy.deepcopy(backbone), copy.deepcopy(built.projector)
    loss = built(view_of(backbone, pictures, joined=False))
    loss.backward()
    with torch.no_grad():
        keys = projector(features_of(start, pictures[1]))
    expected = naive(projector(features_of(start, pictures[0])), keys, 0.2, built.queue)
    torch.testing.assert_close(loss, expected)
    expected.backward()
    for one, other in ((built.projector, projector), (backbone, start)):
        for (name, value), same in zip(one.named_parameters(), other.parameters()):
            torch.testing.assert_close(value.grad, same.grad, msg=lambda text, name=name: f"{name}: {text}")
    assert all(value.grad is None for value in (*built.key_encoder.parameters(), *built.key_projector.parameters()))


def test_keys_enter_the_queue_after_the_step_in_place_of_the_oldest(built, backbone, pictures):
    start = built.queue.clone()
    torch.testing.assert_close(start.norm(dim=1), torch.ones(12))
    view = view_of(backbone, pictures, joined=False)
    with torch.no_grad():
        keys = F.normalize(built.key_projector(features_of(backbone, pictures[1])), dim=1)
    built(view)
    assert torch.equal(built.queue, start), "the queue changes after the step"
    built.after_step(backbone)
    torch.testing.assert_close(built.queue[:8], keys)
    assert torch.equal(built.queue[8:], start[8:]) and built.place == 8
    built(view)
    built.after_step(backbone)
    torch.testing.assert_close(torch.cat([built.queue[8:], built.queue[:4]]), keys)
    torch.testing.assert_close(built.queue[4:8], keys[4:])
    assert built.place == 4


def test_encoder_and_projector_follow(built, backbone, pictures):
    start = copy.deepcopy([*backbone.parameters(), *built.projector.parameters()])
    built(view_of(backbone, pictures, joined=False))
    with torch.no_grad():
        for value in (*backbone.parameters(), *built.projector.parameters()):
            value.add_(1.0)
    built.after_step(backbone)
    for value, before in zip((*built.key_encoder.parameters(), *built.key_projector.parameters()), start):
        torch.testing.assert_close(value, before + 0.1)


def test_the_two_versions(context):
    plain, newer = MoCo(hidden_layer=False), MoCo()
    for objective in (plain, newer):
        objective.build(context)
    assert [tuple(layer.shape) for layer in plain.projector.parameters()] == [(128, WIDTH), (128,)]
    assert newer.projector[0].out_features == WIDTH and newer.projector[2].out_features == 128
    assert newer.queue.shape == (65_536, 128)


def test_a_batch_that_does_not_divide_the_queue_is_refused_before_training(built):
    with pytest.raises(ValueError, match="of the 8 rows of a batch of all processes, got 12: 8 is near"):
        built.check_batch(8)
    built.check_batch(4)


def test_parts_of_rows_are_refused(backbone):
    with pytest.raises(ValueError, match="MoCo compares whole rows, and the readout `Token` gives parts of them"):
        MoCo().build(BuildContext(backbone, WIDTH, None, Token()))


@pytest.mark.parametrize(
    ("keyword", "value"), [("temperature", 0), ("queue_size", 0), ("momentum", 1), ("projection_dim", 0)]
)
def test_an_invalid_keyword_raises(keyword, value):
    with pytest.raises(ValueError, match=f"`{keyword}` should be"):
        MoCo(**{keyword: value})
