"""Feature maps of Flowformer, and the heads of transformers that read them."""

import pytest
import torch
from transformers import (
    AutoBackbone,
    DetrConfig,
    DetrForObjectDetection,
    SegformerConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

import hf_transfer  # noqa: F401  registers the backbone
from hf_transfer.models.flowformer import FlowformerBackbone, FlowformerForImageClassification
from tests.models.flowformer.tiny import tiny_config, tiny_inputs

PYRAMID = {"hidden_sizes": [8, 16], "depths": [1, 2], "image_size": 16}
STAGES = {"out_features": ["stage1", "stage2"]}


def backbone_of(**fields) -> FlowformerBackbone:
    torch.manual_seed(0)
    return AutoBackbone.from_config(tiny_config("image", **fields)).eval()


def images(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 1, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_maps_of_a_pyramid(size):
    model = backbone_of(**PYRAMID, out_features=["stem", "stage1", "stage2"])
    assert isinstance(model, FlowformerBackbone)
    assert model.channels == [8, 8, 16]
    maps = model(images(*size)).feature_maps
    rows, columns = size[0] // 2, size[1] // 2
    grids = [(8, rows, columns), (8, rows, columns), (16, rows // 2, columns // 2)]
    assert [tuple(x.shape) for x in maps] == [(2, *grid) for grid in grids]
    inner = model.flowformer
    grid = inner.embeddings.grid_of(images(*size), True)
    states = inner.embeddings(images(*size), interpolate_pos_encoding=True)
    for layer, stage in ((0, 1), (1, 2), (2, 2)):
        if layer == 1:
            states = inner.downsamples[0](states, grid)
        states = inner.layers[layer](states)
        if layer == 0:
            expected = model.norms["stage1"](states)
            torch.testing.assert_close(maps[stage].flatten(2).mT, expected)
    torch.testing.assert_close(maps[2].flatten(2).mT, inner.norm(states))


def test_maps_of_a_plain_model_are_its_layers():
    model = backbone_of(out_indices=[1, -1])
    assert model.config.stage_names == ["stem", "stage1", "stage2"]
    assert (model.out_features, model.channels) == (["stage1", "stage2"], [16, 16])
    outputs = model(images(8, 8), output_hidden_states=True)
    assert [tuple(x.shape) for x in outputs.feature_maps] == [(2, 16, 4, 4)] * 2
    assert len(outputs.hidden_states) == 3
    assert model(images(8, 8)).hidden_states is None
    last = backbone_of()
    assert last.out_features == ["stage2"]
    assert not last.norms


def test_a_classifier_becomes_a_backbone(tmp_path):
    torch.manual_seed(0)
    classifier = FlowformerForImageClassification(tiny_config("image", **PYRAMID)).eval()
    classifier.save_pretrained(tmp_path)
    model = FlowformerBackbone.from_pretrained(tmp_path, **STAGES).eval()
    assert model.out_features == STAGES["out_features"]
    maps = model(images(16, 16)).feature_maps
    last = classifier.flowformer(pixel_values=images(16, 16)).last_hidden_state
    torch.testing.assert_close(maps[1].flatten(2).mT, last)
    model.save_pretrained(tmp_path / "backbone")
    again = FlowformerBackbone.from_pretrained(tmp_path / "backbone").eval()
    torch.testing.assert_close(again(images(16, 16)).feature_maps, maps)


def test_upernet_detr_and_segformer_heads_train_on_it():
    config = tiny_config("image", **PYRAMID, **STAGES)
    sizes = {"hidden_size": 8, "pool_scales": [1, 2], "use_auxiliary_head": False, "num_labels": 3}
    segmenter = UperNetForSemanticSegmentation(UperNetConfig(backbone_config=config, **sizes))
    labels = torch.randint(0, 3, (2, 16, 16))
    segmenter(images(16, 16), labels=labels).loss.backward()
    layers = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 8, "num_queries": 2}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    detector = DetrForObjectDetection(
        DetrConfig(use_timm_backbone=False, use_pretrained_backbone=False, backbone_config=config, **layers, **heads)
    )
    boxes = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}] * 2
    # the loss of boxes needs scipy alone
    detector(images(16, 16), labels=boxes).loss.backward()
    backbone = AutoBackbone.from_config(config)
    settings = {"hidden_sizes": backbone.channels, "num_encoder_blocks": 2, "decoder_hidden_size": 8}
    head = SegformerDecodeHead(SegformerConfig(**settings, num_labels=3))
    head(backbone(images(16, 16)).feature_maps).square().mean().backward()
    for model in (segmenter.backbone, detector.model.backbone.model, backbone):
        assert model.flowformer.layers[0].attention.q_proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("modality", "fields", "message"),
    [
        ("image", {"out_features": ["stage9"]}, "subset of stage_names"),
        ("text", {"out_features": ["stage1"]}, "'image' or 'time_series'"),
        ("trajectory", {"out_indices": [1]}, "'image' or 'time_series'"),
    ],
)
def test_maps_that_are_not_there_are_refused(modality, fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(modality, **fields)


def test_sizes_off_the_grid_are_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        backbone_of(**PYRAMID)(images(18, 16))


@pytest.mark.parametrize("norm", ["layer_norm", "batch_norm"])
def test_maps_of_series_are_its_layers(norm, tmp_path):
    torch.manual_seed(0)
    config = tiny_config("time_series", norm_type=norm, out_features=["stem", "stage1", "stage2"])
    model = AutoBackbone.from_config(config).eval()
    assert isinstance(model, FlowformerBackbone) and model.main_input_name == "past_values"
    assert model.channels == [16, 16, 16]
    inputs = tiny_inputs(config)
    maps = model(**inputs).feature_maps
    assert [tuple(x.shape) for x in maps] == [(2, 16, 7)] * 3
    plain = model.flowformer(**inputs, output_hidden_states=True)
    torch.testing.assert_close(maps[1].mT, model.norms["stage1"](plain.hidden_states[1]))
    torch.testing.assert_close(maps[2].mT, plain.last_hidden_state)
    # padding is 0 in the maps and changes no real step
    padded = torch.nn.functional.pad(inputs["past_values"], (0, 0, 0, 3), value=torch.nan)
    mask = torch.ones(2, 10).index_fill(1, torch.arange(7, 10), 0)
    for wanted, found in zip(maps, model(past_values=padded, attention_mask=mask).feature_maps):
        torch.testing.assert_close(found[..., :7], wanted, atol=1e-5, rtol=1e-4)
        assert not found[..., 7:].any()
    model.save_pretrained(tmp_path)
    again = FlowformerBackbone.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**inputs).feature_maps, maps)
    model.train()(**inputs).feature_maps[0].square().sum().backward()


def test_a_backbone_of_words_is_refused():
    with pytest.raises(ValueError, match="modality='image' or 'time_series'"):
        FlowformerBackbone(tiny_config())
