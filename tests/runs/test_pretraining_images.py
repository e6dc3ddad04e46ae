"""Images without labels, from the command line's arguments to a model that adapts: views and masked patches."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModel, AutoModelForImageClassification

from hf_transfer.runs.adapt import run_adaptation, run_pretraining
from hf_transfer.runs.arguments import parse_arguments
from tests.marks import slow
from tests.runs.folders import ARCHITECTURE, QUICK

RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_channels": 1}
CONVNEXT = {"model_type": "convnext", "patch_size": 2, "num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]}
VIT = {name: value for name, value in ARCHITECTURE.items() if name not in ("model_type", "modality")}
BACKBONES = {
    "flowformer": ARCHITECTURE,
    "resnet": {**RESNET, "layer_type": "basic", "image_size": 14},
    "vit": {**VIT, "model_type": "vit"},
    "convnext": {**CONVNEXT, "num_channels": 1, "image_size": 14},
}
MAE = {**VIT, "model_type": "vit_mae", "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1}
MAE |= {"decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}
SMALL = {"simclr": {"projection_dim": 8}, "moco": {"queue_size": 16, "projection_dim": 8}}


def pretrain(architecture, *argv):
    words = ["--architecture", json.dumps(architecture), "--dataset", "digits", "--test_rows", "16", *QUICK]
    return run_pretraining(parse_arguments([*words, "--output_dir", "out", *argv]))


def adapt(*argv):
    words = ["--model", "out/model", "--dataset", "digits", "--test_rows", "20", *QUICK, "--output_dir", "next"]
    return run_adaptation(parse_arguments([*words, *argv]))


def views(*names):
    return ["--task", "image-feature-extraction", "--objectives", json.dumps({name: SMALL[name] for name in names})]


@pytest.mark.parametrize("kind", [slow("flowformer"), "vit"])
def test_a_backbone_is_pre_trained_by_views_and_then_adapts(here, kind, capsys):
    metrics = pretrain(BACKBONES[kind], *views("simclr", "moco"), "--augmentation", "{views: small}")
    assert metrics.keys() == {"rank_me", "channel_spread"}
    backbone = AutoModel.from_pretrained("out/model")
    card = ModelCard.load("out/model/README.md")
    assert card.data.pipeline_tag == "image-feature-extraction" and "SimCLR" in card.text and "2002.05709" in card.text
    assert "hf-transfer adapt --model out/model --dataset LABELLED_ROWS" in capsys.readouterr().err
    assert 0 <= adapt("--max_steps", "1", "--learning_rate", "0")["accuracy"] <= 1
    adapted = AutoModelForImageClassification.from_pretrained("next/model").base_model.state_dict()
    shared = [name for name in backbone.state_dict() if name in adapted]
    assert len(shared) > 10
    assert all(torch.equal(backbone.state_dict()[name], adapted[name]) for name in shared)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resnet", "convnext"])
def test_convolutional_backbones_are_read_too(here, kind):
    assert pretrain(BACKBONES[kind], *views("simclr"))["rank_me"] >= 1
    saved = AutoModel.from_pretrained("out/model")
    assert saved.config.model_type == kind and saved.config.image_size == 14
    assert 0 <= adapt()["accuracy"] <= 1


def test_the_size_of_images_has_to_be_told_where_the_configuration_does_not(here):
    unsized = {name: value for name, value in BACKBONES["resnet"].items() if name != "image_size"}
    with pytest.raises(ValueError, match="neither the configuration of a resnet model .* give `image_size` in"):
        pretrain(unsized, *views("simclr"))


def test_a_masked_autoencoder_of_transformers_is_pre_trained_and_then_adapts(here):
    metrics = pretrain(MAE, "--task", "masked-image-modeling", "--augmentation", "{views: mae, flip: false}")
    assert metrics.keys() == {"loss"} and metrics["loss"] > 0
    assert "ViTMAEForPreTraining.from_pretrained" in Path("out/model/README.md").read_text()
    assert 0 <= adapt()["accuracy"] <= 1
    assert json.loads(Path("next/model/config.json").read_text())["model_type"] == "vit"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "image-feature-extraction"], "FlowformerModel has no head: it is a backbone alone"),
        ([*views("moco"), "--per_device_train_batch_size", "6"], "`queue_size` should be a multiple of the 6 rows"),
        ([*views("moco"), "--stop_on_collapse", "true"], "`stop_on_collapse` looks at evaluations"),
        ([*views("moco"), "--augmentation", "{views: big}"], "`views` should be one of"),
        ([*views("moco"), "--augmentation", "{views: small, second: null}"], "compare two views"),
        (
            ["--task", "masked-image-modeling", "--stop_on_collapse", "true", "--eval_strategy", "steps"],
            "`stop_on_collapse` = True would be ignored: it is for pre-training by objectives",
        ),
    ],
)
def test_bad_input_is_refused_before_any_training(here, monkeypatch, words, message):
    def fail(*args, **kwargs):
        raise AssertionError("training began")

    monkeypatch.setattr("transformers.Trainer.train", fail)
    with pytest.raises(ValueError, match=message):
        pretrain(ARCHITECTURE, *words)
