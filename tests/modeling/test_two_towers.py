import pytest
import torch
from transformers import (
    BertModel,
    ConvNextV2Config,
    EfficientNetConfig,
    MobileNetV2Config,
    PoolFormerConfig,
    PreTrainedModel,
    ResNetConfig,
    ViTConfig,
    ViTModel,
)

from hf_transfer.modeling.two_towers import load_tower, named_parts, settle_width, tower_config
from tests.pretraining import pairs


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """Saved towers, and saved models that have two."""
    folder = tmp_path_factory.mktemp("towers")
    whole = pairs.dual_encoder(seed=5)
    made: dict[str, PreTrainedModel] = {"vit": whole.vision_model, "bert": whole.text_model, "both": whole}
    made["clip"] = pairs.clip(seed=5)
    for name, model in made.items():
        model.save_pretrained(folder / name)
    return {name: str(folder / name) for name in made}


def test_names_stand_in_place_of_configurations(folders):
    settings = {"model_type": "vision-text-dual-encoder", "vision_config": folders["vit"], "text_config": {"x": 1}}
    assert named_parts(settings) == {"vision_config": folders["vit"]}
    assert named_parts({"model_type": "vit"}) == {}


@pytest.mark.parametrize("start", [("vit", "bert"), ("both", "both")])
def test_a_tower_takes_the_weights_of_a_model(folders, start):
    model, whole = pairs.dual_encoder(seed=0), pairs.dual_encoder(seed=5)
    parts = {"vision_config": folders[start[0]], "text_config": folders[start[1]]}
    for part, name in parts.items():
        assert not load_tower(model, part, name)["missing_keys"]
    assert isinstance(model.vision_model, ViTModel) and isinstance(model.text_model, BertModel)
    for key, value in whole.state_dict().items():
        same = torch.equal(value, model.state_dict()[key])
        assert same or key in ("visual_projection.weight", "text_projection.weight"), key
    assert not torch.equal(whole.visual_projection.weight, model.visual_projection.weight)


def test_the_part_of_a_model_with_two_towers(folders):
    assert tower_config(folders["both"], "vision_config").model_type == "vit"
    assert tower_config(folders["clip"], "text_config").model_type == "clip_text_model"
    assert tower_config(folders["bert"], "text_config").model_type == "bert"


def test_what_cannot_be_a_tower_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`architecture`: cannot load `.*nothing` as text_config"):
        tower_config(str(tmp_path / "nothing"), "text_config")
    with pytest.raises(ValueError, match="a resnet cannot be the vision_config of a vision-text-dual-encoder"):
        settle_width(ResNetConfig(), "vision_config")
    with pytest.raises(ValueError, match="a poolformer cannot be the vision_config"):
        settle_width(PoolFormerConfig(), "vision_config")


@pytest.mark.parametrize(
    "config, width",
    [
        (EfficientNetConfig(hidden_dim=1280, width_coefficient=1.0, depth_coefficient=1.0, image_size=64), 1280),
        (ConvNextV2Config(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]), 32),
        (MobileNetV2Config(image_size=96), 1280),
        (ViTConfig(hidden_size=24), 24),
    ],
)
def test_a_convolutional_net_is_as_wide_as_what_it_pools(config, width):
    settle_width(config, "vision_config")
    assert config.hidden_size == width
