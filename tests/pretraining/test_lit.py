import copy

import pytest
import torch

from hf_transfer.pretraining.clip import CLIP
from hf_transfer.pretraining.lit import convert
from hf_transfer.training.converters import convert_model
from hf_transfer.training.transfer_model import TransferModel
from tests import tiny
from tests.pretraining import pairs


@pytest.mark.parametrize("name", sorted(pairs.MODELS))
def test_the_image_tower_gets_no_gradient_and_everything_else_does(name):
    model = convert_model(pairs.MODELS[name](), {"lit": {}})
    TransferModel(model, {"clip": CLIP()}, "nothing").train()(**pairs.batch_of()).loss.backward()
    inside = {key: value.grad for key, value in model.named_parameters() if key.startswith("vision_model.")}
    assert len(inside) > 10 and all(grad is None for grad in inside.values())
    rest = {key: value.grad for key, value in model.named_parameters() if key not in inside}
    assert rest["logit_scale"] is not None
    # of a ViT's projection too, where the model has one outside the tower
    assert sum(grad is not None and grad.abs().max() > 0 for grad in rest.values()) > 10


def test_it_stays_in_evaluation_mode_in_copies_too():
    model = convert(pairs.dual_encoder())
    for one in (model, copy.deepcopy(model)):
        one.train()
        assert one.training and one.text_model.training
        assert not any(module.training for module in one.vision_model.modules())
        one.eval()
        assert not one.text_model.training


def test_dropout_of_the_image_tower_is_off():
    model = pairs.dual_encoder()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    pixels = pairs.batch_of()["pixel_values"]
    free = [model.train().get_image_features(pixels).pooler_output for _ in range(2)]
    locked = [convert(copy.deepcopy(model)).train().get_image_features(pixels).pooler_output for _ in range(2)]
    assert torch.equal(*locked) and not torch.equal(*free)


def test_the_saved_model_is_an_ordinary_one(tmp_path):
    model = convert(pairs.dual_encoder())
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    batch = pairs.batch_of()
    assert torch.equal(loaded(**batch).logits_per_image, model.eval()(**batch).logits_per_image)
    assert "Locked" not in (tmp_path / "config.json").read_text()


def test_a_model_without_the_tower_is_refused():
    with pytest.raises(
        ValueError, match="`tower` should be a module of ViTForImageClassification, got 'vision_model'"
    ):
        convert(tiny.vit())
    with pytest.raises(TypeError, match="converter `lit`"):
        convert_model(pairs.dual_encoder(), {"lit": {"towers": 2}})
