"""Heads on the backbone of a model that is there: its weights, its maps, and how its pictures are read."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessorPil,
    EfficientNetConfig,
    EfficientNetModel,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from hf_transfer.modeling.frozen_norms import frozen_norms, untrained_frozen_norms
from hf_transfer.modeling.named_backbones import can_be_backbone, named_backbone
from hf_transfer.models.feature_maps import FeatureMapsBackbone
from hf_transfer.runs.models import load_model
from hf_transfer.runs.task import with_new_head
from hf_transfer.tasks import task_named
from hf_transfer.tasks.arguments import ModelArguments

SMALL = {"hidden_size": 16, "num_hidden_layers": 8, "num_attention_heads": 2, "intermediate_size": 16}
NET = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
COLOURS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    models: dict[str, PreTrainedModel] = {
        "resnet": ResNetForImageClassification(ResNetConfig(**NET, embedding_size=8, layer_type="basic")),
        "convnext": ConvNextForImageClassification(ConvNextConfig(**NET)),
        "vit": ViTForImageClassification(ViTConfig(**vision)),
        "clip": CLIPModel(CLIPConfig(vision_config=vision, text_config={**SMALL, "vocab_size": 20})),
        "bert": BertModel(BertConfig(**SMALL, vocab_size=20)),
    }
    cutting = ConvNextImageProcessorPil(size={"shortest_edge": 48}, crop_pct=0.875, **COLOURS)
    plain = ViTImageProcessorPil(size={"height": 32, "width": 32}, **COLOURS)
    for name, model in models.items():
        model.save_pretrained(folder / name)
        if name != "bert":
            (cutting if name in ("resnet", "convnext") else plain).save_pretrained(folder / name)
    return {name: str(folder / name) for name in models}


def loaded(architecture: dict, task: str) -> PreTrainedModel:
    names = {"class_names": ["a", "b"]} if task != "keypoint-detection" else {"outputs": 5}
    return load_model(ModelArguments(architecture=architecture, task=task), **names)


@pytest.mark.parametrize("name", ["resnet", "vit", "clip"])
def test_a_head_begins_on_the_weights_of_a_model(folders, name):
    settings = {"model_type": "heatmap-keypoints", "backbone_config": folders[name]}
    backbone = loaded(settings, "keypoint-detection").eval().backbone
    whole = AutoModel.from_pretrained(folders[name]).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = getattr(whole, "vision_model", whole)(pixel_values=images).last_hidden_state
        (found,) = backbone(images).feature_maps
    if expected.ndim == 3:
        expected = expected[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(found, expected)


def test_norms_of_maps_are_new_and_told(folders, caplog):
    model = loaded({"model_type": "heatmap-keypoints", "backbone_config": folders["convnext"]}, "keypoint-detection")
    stored = AutoModel.from_pretrained(folders["convnext"]).encoder.state_dict()
    found = model.backbone.encoder.state_dict()
    assert stored and all(torch.equal(value, stored[key]) for key, value in found.items())
    assert "has no fitting weights for hidden_states_norms.stage4" in caplog.text


@pytest.mark.parametrize(
    ("head", "name", "stages"),
    [
        ("heatmap-keypoints", "resnet", ["stage4"]),
        ("upernet", "resnet", ["stage1", "stage2", "stage3", "stage4"]),
        ("rt_detr", "convnext", ["stage2", "stage3", "stage4"]),
        ("upernet", "vit", ["stage2", "stage4", "stage6", "stage8"]),
        ("heatmap-keypoints", "clip", ["stage8"]),
    ],
)
def test_a_head_gets_as_many_maps_as_it_reads(folders, head, name, stages):
    assert named_backbone(folders[name], AutoConfig.for_model(head)).out_features == stages


def test_a_detector_knows_how_wide_they_are(folders):
    small = {"encoder_hidden_dim": 16, "d_model": 16, "decoder_layers": 1, "num_queries": 5, "num_denoising": 2}
    small |= {"decoder_in_channels": [16, 16, 16], "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    settings = {"model_type": "rt_detr", "backbone_config": folders["resnet"], **small}
    model = loaded(settings, "object-detection").eval()
    assert model.config.encoder_in_channels == [16, 24, 32]
    assert model(torch.randn(1, 3, 64, 64)).logits.shape == (1, 5, 2)


def test_frozen_norms_of_a_detector_give_what_the_norms_gave(tmp_path):
    """EfficientNet adds 1e-3 to the variances of its norms, and transformers' frozen norms 1e-5."""
    config = EfficientNetConfig(image_size=64, width_coefficient=1.0, depth_coefficient=0.3, hidden_dim=1280)
    net = EfficientNetModel(config)
    with torch.no_grad():
        for norm in (one for one in net.modules() if isinstance(one, torch.nn.BatchNorm2d)):
            norm.running_var.uniform_(0, 2e-3)
    net.save_pretrained(tmp_path / "net")
    small = {"encoder_hidden_dim": 16, "d_model": 16, "decoder_layers": 1, "num_queries": 5, "num_denoising": 2}
    small |= {"decoder_in_channels": [16, 16, 16], "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    settings = {"model_type": "rt_detr", "backbone_config": str(tmp_path / "net"), "image_size": 64, **small}
    model = loaded(settings, "object-detection").eval()
    backbone = next(one for one in model.modules() if isinstance(one, FeatureMapsBackbone))
    assert untrained_frozen_norms(model) == 0 and frozen_norms(backbone)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = net.eval()(pixels).last_hidden_state
        torch.testing.assert_close(backbone.base(pixels).last_hidden_state, expected)
        for norm in frozen_norms(backbone).values():
            norm.running_var -= 1e-3 - 1e-5
        without = backbone.base(pixels).last_hidden_state
    assert (without - expected).abs().max() > 0.1 * expected.abs().max(), "what transformers' norms alone would give"


@pytest.mark.parametrize(
    ("task", "head"), [("keypoint-detection", "heatmap-keypoints"), ("image-segmentation", "upernet")]
)
def test_a_model_without_such_a_head_is_the_backbone_of_a_new_one(folders, task, head, caplog):
    changed = with_new_head(ModelArguments(model=folders["vit"], task=task))
    assert changed.model is None
    assert changed.architecture == {"model_type": head, "backbone_config": folders["vit"]}
    assert f"vit has no head for {task}: it is the backbone of a new {head}" in caplog.text
    model = loaded(changed.architecture, task)
    processor = task_named(task).load_processor(changed, model.config)
    assert dict(processor.size) == {"height": 32, "width": 32} and list(processor.image_mean) == COLOURS["image_mean"]


def test_whole_pictures_are_read_at_the_size_of_the_models_own_processor(folders):
    """Which cuts the middle out of them, as labels of parts could not follow."""
    task = task_named("keypoint-detection")
    arguments = ModelArguments(architecture={"model_type": "heatmap-keypoints", "backbone_config": folders["resnet"]})
    model = loaded(arguments.architecture, task.name)
    processor = task.load_processor(arguments, model.config)
    assert model.config.image_size == 48 and dict(processor.size) == {"height": 48, "width": 48}
    assert not processor.do_center_crop and list(processor.image_std) == COLOURS["image_std"]
    arguments.architecture["image_size"] = 64
    assert loaded(arguments.architecture, task.name).config.image_size == 64


def test_a_new_detector_has_to_be_named(folders):
    message = r"has no head for object-detection: .* architecture: \{model_type: rt_detr, backbone_config: .*vit\}"
    with pytest.raises(ValueError, match=message):
        with_new_head(ModelArguments(model=folders["vit"], task="object-detection"))


def test_models_with_heads_and_other_tasks_stay_as_they_are(folders):
    for model, task in ((folders["vit"], "image-classification"), (folders["bert"], "keypoint-detection")):
        given = ModelArguments(model=model, task=task)
        assert with_new_head(given) is given


def test_what_cannot_be_a_backbone_is_refused(folders, tmp_path):
    plain = AutoConfig.for_model("upernet")
    with pytest.raises(ValueError, match="cannot load `.*bert` as backbone_config: the states of a bert are no feat"):
        named_backbone(folders["bert"], plain)
    with pytest.raises(ValueError, match="cannot load `.*nothing` as backbone_config"):
        named_backbone(str(tmp_path / "nothing"), plain)
    flat = ResNetConfig(hidden_sizes=[8], depths=[1], embedding_size=8)
    ResNetForImageClassification(flat).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a rt_detr reads 3 maps, and `.*` has 1 stages"):
        named_backbone(str(tmp_path), AutoConfig.for_model("rt_detr"))
    assert named_backbone(str(tmp_path), plain).out_features == ["stage1"], "a UperNet takes as many as there are"
    with pytest.raises(
        ValueError, match="`peft`: `.*vit` has no head for image-segmentation, and an adapter is saved"
    ):
        with_new_head(ModelArguments(model=folders["vit"], task="image-segmentation", peft={"peft_type": "LORA"}))
    assert not can_be_backbone(None) and not can_be_backbone(BertConfig())


def test_weights_of_another_kind_are_refused(folders, tmp_path):
    """A folder that says one kind and holds another."""
    ResNetForImageClassification(ResNetConfig(**NET, embedding_size=8, layer_type="basic")).save_pretrained(tmp_path)
    BertModel(BertConfig(**SMALL, vocab_size=20)).save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="has no weights of a ResNetBackbone"):
        loaded({"model_type": "upernet", "backbone_config": str(tmp_path)}, "image-segmentation")
