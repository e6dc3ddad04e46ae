import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    BertForMaskedLM,
    BertForTokenClassification,
    CLIPConfig,
    CLIPModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.core.readout import Named, Nothing
from hf_transfer.modeling.readouts import Dense, LinearHead, Pooled, Token, choose_readout, nearest
from tests import tiny


def segformer() -> SegformerForSemanticSegmentation:
    sizes = {"num_encoder_blocks": 2, "hidden_sizes": [8, 8], "depths": [1, 1], "num_attention_heads": [1, 1]}
    sizes |= {"sr_ratios": [4, 2], "patch_sizes": [7, 3], "strides": [4, 2], "mlp_ratios": [2, 2]}
    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=4, decoder_hidden_size=8, **sizes)).eval()


def tagger() -> BertForTokenClassification:
    return BertForTokenClassification(tiny.bert(num_labels=5).config).eval()


def clip() -> CLIPModel:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    towers = {
        "text_config": {**sizes, "vocab_size": 50},
        "vision_config": {**sizes, "image_size": 16, "patch_size": 8},
    }
    return CLIPModel(CLIPConfig(**towers, projection_dim=12))


def units_of(model, batch, readout=None):
    readout = choose_readout(model, readout)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with readout:
        outputs = model(**inputs)
    return readout, outputs, readout.read(outputs, batch)


def test_rows_of_a_linear_head(digits):
    model = tiny.vit().eval()
    readout, outputs, units = units_of(model, tiny.batch_of(digits, 4))
    assert isinstance(readout, LinearHead) and (readout.feature_dim, readout.num_outputs) == (16, 10)
    torch.testing.assert_close(model.classifier(units.features), outputs.logits)
    assert units.row.tolist() == [0, 1, 2, 3] and units.labels.tolist() == digits[:4]["labels"].tolist()


def test_units_of_a_tagger_are_its_real_tokens():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    labels = torch.tensor([[IGNORED_LABEL, 1, 2], [3, IGNORED_LABEL, IGNORED_LABEL]])
    batch = {"input_ids": torch.tensor([[5, 6, 7], [8, 0, 0]]), "attention_mask": mask, "labels": labels}
    model = tagger()
    readout, outputs, units = units_of(model, batch)
    assert isinstance(readout, Token) and (readout.feature_dim, readout.num_outputs) == (16, 5)
    assert units.row.tolist() == [0, 0, 0, 1] and units.labels.tolist() == [IGNORED_LABEL, 1, 2, 3]
    torch.testing.assert_close(units.logits, outputs.logits[mask.bool()])
    torch.testing.assert_close(model.classifier(units.features), units.logits)
    batch.pop("attention_mask")
    assert units_of(model, batch)[2].row.tolist() == [0, 0, 0, 1, 1, 1]


def test_units_of_a_segmentation_model_are_the_pixels_of_its_grid():
    labels = torch.randint(4, (2, 64, 64), generator=torch.Generator().manual_seed(0))
    labels[0, :8] = 255
    model = segformer()
    readout, outputs, units = units_of(model, {"pixel_values": torch.randn(2, 3, 64, 64), "labels": labels})
    assert isinstance(readout, Dense) and (readout.feature_dim, readout.num_outputs) == (8, 4)
    assert outputs.logits.shape == (2, 4, 16, 16) and units.logits.shape == (512, 4)
    torch.testing.assert_close(units.logits[256 + 16 * 3 + 5], outputs.logits[1, :, 3, 5])
    head = model.decode_head.classifier
    torch.testing.assert_close(F.linear(units.features, head.weight.flatten(1), head.bias), units.logits)
    assert units.labels[256 + 16 * 3 + 5] == labels[1, 4 * 3 + 2, 4 * 5 + 2]
    assert (units.labels == IGNORED_LABEL).sum() == 32 and units.row.tolist() == [0] * 256 + [1] * 256


def test_the_nearest_label_of_a_coarser_and_a_finer_grid():
    labels = torch.arange(16).reshape(1, 4, 4)
    assert nearest(labels, (2, 2)).tolist() == [[[5, 7], [13, 15]]]
    assert torch.equal(nearest(labels, (4, 4)), labels)
    assert nearest(labels, (8, 4))[0, :, 0].tolist() == [0, 0, 4, 4, 8, 8, 12, 12]


@pytest.mark.parametrize("kind", ["convnext", "swin", "dinov2"])
def test_a_backbone_made_of_parts_is_pooled_too(kind):
    """transformers calls their encoders models too."""
    sizes = {"convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}}
    sizes["swin"] = {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2, "image_size": 32}
    sizes["dinov2"] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    model = AutoModel.from_config(AutoConfig.for_model(kind, **sizes[kind]))
    readout, _, units = units_of(model.eval(), {"pixel_values": torch.randn(2, 3, 32, 32)})
    assert isinstance(readout, Pooled) and units.features.shape == (2, readout.feature_dim) == (2, 16)


SMALL_NETS = {
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
    "mobilenet_v2": {"depth_multiplier": 0.1, "finegrained_output": False},
    "mobilevit": {"hidden_sizes": [8, 8, 8], "neck_hidden_sizes": [4, 4, 4, 8, 8, 8, 40], "num_attention_heads": 2},
    "textnet": {},
    "swiftformer": {"embed_dims": [8, 8, 8, 24], "depths": [1, 1, 1, 1]},
}


@pytest.mark.parametrize("kind", SMALL_NETS)
def test_the_width_of_a_net_whose_configuration_tells_none_or_another(kind):
    model = AutoModel.from_config(AutoConfig.for_model(kind, **SMALL_NETS[kind], image_size=64)).eval()
    readout, outputs, units = units_of(model, {"pixel_values": torch.randn(2, 3, 64, 64)})
    pooled = outputs.get("pooler_output", outputs.last_hidden_state)
    expected = pooled if pooled.ndim == 2 else pooled.mean(dim=(2, 3))
    assert isinstance(readout, Pooled) and readout.feature_dim == expected.shape[1]
    torch.testing.assert_close(units.features, expected)


def test_a_backbone_is_pooled(sentences):
    batch = tiny.batch_of(sentences, 3)
    backbone = tiny.bert().bert.eval()
    readout, outputs, units = units_of(backbone, batch)
    assert isinstance(readout, Pooled) and (readout.feature_dim, readout.num_outputs) == (16, None)
    torch.testing.assert_close(units.features, outputs.pooler_output)
    backbone.pooler = None
    readout, outputs, units = units_of(backbone, batch)
    weights = batch["attention_mask"].float().unsqueeze(-1)
    mean = (outputs.last_hidden_state * weights).sum(1) / weights.sum(1)
    torch.testing.assert_close(units.features, mean)
    assert units.logits is None and units.labels.tolist() == batch["labels"].tolist()


def test_an_output_by_its_name_and_towers_that_are_asked_for_none():
    model = clip().eval()
    batch = {"input_ids": torch.tensor([[1, 2, 49], [3, 4, 49]]), "pixel_values": torch.randn(2, 3, 16, 16)}
    assert isinstance(choose_readout(model), Nothing)
    readout, outputs, units = units_of(model, batch, "image_embeds")
    assert isinstance(readout, Named) and readout.feature_dim == 12
    torch.testing.assert_close(units.features, outputs.image_embeds)
    readout, outputs, units = units_of(model, batch, Named(["image_embeds", "text_embeds"]))
    assert readout.feature_dim == 24 == units.features.shape[1]
    torch.testing.assert_close(units.features, torch.cat([outputs.image_embeds, outputs.text_embeds], dim=1))
    with pytest.raises(ValueError, match="`imagined` should be an output of shape"):
        units_of(model, batch, "imagined")


def test_a_masked_language_model_has_nothing_to_read(sentences):
    batch = tiny.batch_of(sentences, 2)
    readout, _, units = units_of(BertForMaskedLM(tiny.bert().config).eval(), batch)
    assert isinstance(readout, Nothing) and units.features is None and units.logits is None
    assert units.row.tolist() == [0, 1]


def test_a_readout_of_another_model_leaves_the_first_alone(digits):
    first, second = tiny.vit().eval(), tiny.vit(num_labels=7).eval()
    readout = choose_readout(first)
    assert readout.of(second).num_outputs == 7 and readout.num_outputs == 10
    batch = tiny.batch_of(digits, 2)
    with readout:
        outputs = first(pixel_values=batch["pixel_values"])
    torch.testing.assert_close(readout.read(outputs, batch).logits, outputs.logits)
    assert not any(module._forward_hooks for module in first.modules())
