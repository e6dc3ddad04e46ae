"""Feature maps of models that transformers has no backbone class of."""

import pytest
import torch
from transformers import (
    AutoBackbone,
    AutoConfig,
    BertConfig,
    CLIPVisionConfig,
    EfficientNetConfig,
    LevitConfig,
    MobileNetV2Config,
    PreTrainedConfig,
    PvtConfig,
    ResNetConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    ViTConfig,
    ViTMAEConfig,
)

from hf_transfer.models.feature_maps import FeatureMapsBackbone, FeatureMapsConfig, grid

SMALL = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
VIT = ViTConfig(**SMALL, image_size=32, patch_size=8)
CLIP = CLIPVisionConfig(**SMALL, image_size=32, patch_size=16)


def made(config: PreTrainedConfig, **changes) -> FeatureMapsBackbone:
    torch.manual_seed(0)
    maps = FeatureMapsConfig.of(config)
    for name, value in changes.items():
        setattr(maps, name, value)
    return AutoBackbone.from_config(maps).eval()


def test_the_maps_of_a_vit_are_its_patches_in_their_places():
    backbone = made(VIT, out_features=["stage2", "stage4"])
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        first, last = backbone(images).feature_maps
        states = backbone.base(images, output_hidden_states=True)
    assert backbone.channels == [16, 16] and first.shape == last.shape == (2, 16, 4, 4)
    assert torch.equal(first[:, :, 1, 2], states.hidden_states[2][:, 1 + 4 * 1 + 2])
    assert torch.equal(last[:, :, 3, 0], states.last_hidden_state[:, 1 + 4 * 3])
    assert not any("pooler" in name for name, _ in backbone.named_parameters()), "no map goes through it"


@pytest.mark.parametrize("config", [CLIP, PvtConfig(image_size=64)], ids=lambda one: one.model_type)
def test_maps_of_other_tokens(config):
    backbone = made(config)
    size = config.image_size
    with torch.no_grad():
        (found,) = backbone(torch.randn(1, 3, size, size)).feature_maps
    assert found.shape == (1, backbone.channels[0], 2, 2)


@pytest.mark.parametrize("kind", [EfficientNetConfig, MobileNetV2Config])
def test_the_maps_of_a_convolutional_net_are_its_last_of_each_size(kind):
    config = kind(image_size=64)
    backbone = made(config, out_indices=[1, 2, 3, 4])
    with torch.no_grad():
        found = backbone(torch.randn(1, 3, 64, 96), output_hidden_states=True)
    assert [one.shape[1] for one in found.feature_maps] == backbone.channels
    heights = [one.shape[2] for one in found.feature_maps]
    assert heights == sorted(set(heights), reverse=True) and found.feature_maps[0].shape[3] == 1.5 * heights[0]
    of_that_size = [one for one in found.hidden_states if one.shape[2] == heights[1]]
    assert torch.equal(found.feature_maps[1], of_that_size[-1])


def test_a_head_on_it_is_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    maps = FeatureMapsConfig.of(VIT)
    maps.out_features = ["stage1", "stage2", "stage3", "stage4"]
    settings = {"use_auxiliary_head": False, "hidden_size": 8, "num_labels": 3}
    model = UperNetForSemanticSegmentation(UperNetConfig(backbone_config=maps, **settings)).eval()
    images = torch.randn(2, 3, 32, 32)
    logits = model(images).logits
    model.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).backbone_config.out_features == maps.out_features
    torch.testing.assert_close(UperNetForSemanticSegmentation.from_pretrained(tmp_path).eval()(images).logits, logits)
    logits.sum().backward()
    assert all(one.grad is not None for name, one in model.named_parameters() if "encoder.layer.0" in name)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ViTMAEConfig(**SMALL, image_size=32, patch_size=8), "the tokens of a vit_mae are no patches of a picture"),
        (LevitConfig(), "the tokens of a levit are no patches of a picture"),
        (BertConfig(), "the states of a bert are no feature maps"),
    ],
    ids=["vit_mae", "levit", "bert"],
)
def test_what_gives_no_maps_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        FeatureMapsConfig.of(config)


def test_pictures_must_be_squares_where_no_patch_has_a_size():
    assert grid(16, BertConfig(), (64, 64)) == (4, 4)
    with pytest.raises(ValueError, match=r"a bert gives maps of square pictures alone, and these have \(64, 96\)"):
        grid(24, BertConfig(), (64, 96))


def test_resnets_need_none_of_it():
    assert type(AutoBackbone.from_config(ResNetConfig(depths=[1], hidden_sizes=[8]))).__name__ == "ResNetBackbone"
