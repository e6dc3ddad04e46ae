"""Queries and pictures of detectors as units, and a loss that leaves unlabelled pictures out."""

import pytest
import torch
from accelerate import Accelerator
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    ResNetConfig,
    RTDetrConfig,
    RTDetrForObjectDetection,
    YolosConfig,
    YolosForObjectDetection,
)
from transformers.loss import loss_for_object_detection

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.core.readout import read_units
from hf_transfer.data.objects import padded_objects
from hf_transfer.modeling.detection_readouts import Pictures, Queries
from hf_transfer.modeling.label_forms import label_form, loss_of_labelled, objects_of, rows_of_batch
from hf_transfer.modeling.readouts import choose_readout
from hf_transfer.training.transfer_model import TransferModel

SIZE = 32


def yolos() -> YolosForObjectDetection:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return YolosForObjectDetection(
        YolosConfig(image_size=[SIZE, SIZE], patch_size=8, num_detection_tokens=5, num_labels=2, **sizes)
    )


def resnet(**more) -> ResNetConfig:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    return ResNetConfig(**sizes, **more)


def detr() -> DetrForObjectDetection:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "auxiliary_loss": True, "dropout": 0.0}
    own = {"use_timm_backbone": False, "backbone_config": resnet(out_features=["stage4"]), "num_queries": 6}
    return DetrForObjectDetection(DetrConfig(num_labels=2, **own, **sizes, **heads))


def rt_detr() -> RTDetrForObjectDetection:
    sizes = {"d_model": 16, "encoder_hidden_dim": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 6}
    layers = {"decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "dropout": 0.0}
    backbone = {"model_type": "rt_detr_resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 16, 16]}
    backbone |= {"depths": [1, 1, 1, 1], "layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"]}
    more = {"decoder_in_channels": [16, 16, 16], "encoder_in_channels": [16, 16, 16], "num_denoising": 4}
    config = RTDetrConfig(num_labels=2, backbone_config=backbone, anchor_image_size=None, **sizes, **layers, **more)
    return RTDetrForObjectDetection(config)


MODELS = {"yolos": yolos, "detr": detr, "rt_detr": rt_detr}


@pytest.fixture
def labels() -> torch.Tensor:
    tables = [[[0, 0.5, 0.5, 0.4, 0.4], [1, 0.3, 0.3, 0.2, 0.2]], [], [[1, 0.6, 0.5, 0.3, 0.5]]]
    return padded_objects([torch.tensor(one).reshape(-1, 5) for one in tables])


def make(kind: str):
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    with torch.no_grad():  # sure of one class, so that a picture without objects costs more than others
        for name, parameter in model.named_parameters():
            if "class" in name and name.endswith("bias") and len(parameter) in (2, 3):
                parameter[0] += 3
    return model


@pytest.mark.parametrize("kind", MODELS)
def test_queries_and_pictures_are_units(kind, labels):
    model, pixels = make(kind), torch.randn(3, 3, SIZE, SIZE)
    readout = choose_readout(model)
    assert isinstance(readout, Queries) and not readout.units_are_rows
    units = read_units(readout, model, {"pixel_values": pixels})
    outputs = model(pixel_values=pixels)
    queries = outputs.logits.shape[1]
    assert units.features.shape == (3 * queries, readout.feature_dim) and readout.feature_dim == 16
    assert torch.equal(units.logits, outputs.logits.flatten(0, 1)) and units.logits.shape[1] == readout.num_outputs
    assert units.row.tolist() == [row for row in range(3) for _ in range(queries)]
    told = readout.told(outputs)
    assert torch.equal(told[..., -4:], outputs.pred_boxes)

    whole = Pictures().of(model)
    units = whole.read(outputs, {"labels": labels})
    assert units.features.shape == (3, 16) and units.logits.shape == (3, 2)
    assert units.labels.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert torch.allclose(units.logits[:, 1], outputs.logits[..., 1].amax(dim=1))


@pytest.mark.parametrize("kind", MODELS)
def test_the_loss_is_of_the_labelled_pictures(kind, labels):
    model, pixels = make(kind), torch.randn(3, 3, SIZE, SIZE)
    hidden = labels.clone()
    hidden[1] = IGNORED_LABEL
    own = [model(pixel_values=pixels[[place]], labels=[objects_of(labels[place])]).loss for place in range(3)]
    wanted, everything = torch.stack([own[0], own[2]]).mean(), torch.stack(own).mean()
    transfer = TransferModel(model)
    assert torch.allclose(transfer(pixel_values=pixels, labels=hidden).loss, wanted, rtol=1e-4)
    assert torch.allclose(transfer(pixel_values=pixels, labels=labels).loss, everything, rtol=1e-4)
    assert not torch.allclose(everything, wanted, rtol=1e-3)
    few = torch.tensor([0, 2])
    together = model(pixel_values=pixels[few], labels=[objects_of(labels[place]) for place in few]).loss
    with loss_of_labelled(model, torch.tensor([True, False, True])):
        found = model(pixel_values=pixels, labels=[objects_of(table) for table in hidden]).loss
    assert torch.allclose(found, together, rtol=1e-4)
    assert transfer(pixel_values=pixels, labels=torch.full_like(labels, IGNORED_LABEL)).loss == 0
    assert "_loss_function" not in vars(model)


@pytest.mark.parametrize("kind", MODELS)
def test_an_evaluation_loss_asks_no_other_process(kind, labels, monkeypatch):
    """Which may have fewer labelled pictures, and would be waited for."""
    Accelerator(cpu=True)  # from here on transformers takes the number of boxes from all processes

    def asked(*_):
        raise AssertionError("another process is asked")

    monkeypatch.setattr(loss_for_object_detection, "reduce", asked)
    model, pixels = make(kind), torch.randn(3, 3, SIZE, SIZE)
    labels[1] = IGNORED_LABEL
    before = loss_for_object_detection.PartialState
    assert TransferModel(model)(pixel_values=pixels, labels=labels).loss.isfinite()
    assert loss_for_object_detection.PartialState is before


@pytest.mark.parametrize("kind", MODELS)
def test_it_trains_where_some_pictures_are_unlabelled(kind, labels):
    model, pixels = make(kind), torch.randn(3, 3, SIZE, SIZE)
    labels[1] = IGNORED_LABEL
    transfer = TransferModel(model).train()
    loss = transfer(pixel_values=pixels, labels=labels).loss
    loss.backward()
    assert torch.isfinite(loss) and any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("first", [True, False])
def test_layers_are_not_taken_for_pictures_where_there_are_as_many(first):
    """[layers, B, Q, C] of DETR, [B, layers, Q, C] of RT-DETR."""
    values, keep = torch.randn(3, 3, 4, 2), torch.tensor([True, False, True])
    wanted = values[:, keep] if first else values[keep]
    assert torch.equal(rows_of_batch(values, keep, layers_first=first), wanted)


def test_label_smoothing_would_be_passed_over_and_is_refused():
    with pytest.raises(ValueError, match="masks, boxes, key points and spans have a loss of their own"):
        TransferModel(make("yolos"), label_smoothing=0.1)


def test_a_loss_of_ones_own_is_restored(labels):
    model = make("yolos")
    model.loss_function = own = lambda *arguments: (torch.zeros(()), {}, None)
    with loss_of_labelled(model, torch.tensor([True, False, True])):
        assert model.loss_function is not own
    assert model.loss_function is own


def test_tables_are_filled_up(labels):
    assert labels.shape == (3, 2, 5) and labels[1, :, 0].tolist() == [-1, -1]
    objects = label_form(make("yolos")).given(make("yolos"), labels)
    assert [len(one["class_labels"]) for one in objects] == [2, 0, 1] and objects[0]["boxes"].shape == (2, 4)
    unknown = padded_objects([torch.full((1, 5), -100.0), torch.ones(3, 5)])
    assert (unknown[0] == IGNORED_LABEL).all() and unknown.shape == (2, 3, 5)
