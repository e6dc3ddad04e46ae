import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    AutoModelForMaskedImageModeling,
    ViTForImageClassification,
    ViTMAEForPreTraining,
)

from hf_transfer.modeling.vit_mae import register_vit_mae
from tests import tiny
from tests.data.test_masked_patches import vit_mae


@pytest.fixture
def folder(tmp_path):
    register_vit_mae()
    torch.manual_seed(0)
    vit_mae().save_pretrained(tmp_path / "mae")
    return tmp_path / "mae"


def test_the_auto_class_of_the_task_knows_it(folder):
    assert type(AutoModelForMaskedImageModeling.from_pretrained(folder)) is ViTMAEForPreTraining


def test_its_encoder_is_a_vit(folder, tmp_path, digits):
    mae = ViTMAEForPreTraining.from_pretrained(folder)
    model = AutoModelForImageClassification.from_pretrained(folder, num_labels=4).eval()
    assert type(model) is ViTForImageClassification and model.classifier.out_features == 4
    encoder = {name: value for name, value in mae.state_dict().items() if name.startswith("vit.")}
    own = model.state_dict()
    assert encoder and all(torch.equal(value, own[name]) for name, value in encoder.items())
    model.save_pretrained(tmp_path / "vit")
    again = ViTForImageClassification.from_pretrained(tmp_path / "vit").eval()
    pixels = tiny.batch_of(digits)["pixel_values"]
    assert again.config.model_type == "vit" and again.config.architectures == ["ViTForImageClassification"]
    assert torch.equal(again(pixels).logits, model(pixels).logits)
