"""Adaptation of models with two towers by texts of classes, from the arguments to the saved folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from datasets import DatasetDict, load_from_disk
from huggingface_hub import ModelCard
from transformers import AutoModel, AutoProcessor, ViTForImageClassification

from hf_transfer.data.images import with_pixel_values
from hf_transfer.evaluation.retrieval import retrieval_metrics
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.export import export_folder
from hf_transfer.runs.predict import predict_rows
from hf_transfer.runs.task import with_task
from tests import tiny
from tests.pretraining import pairs
from tests.runs.folders import QUICK

COOP = {"converters": {"coop": {"context": 2}}}
METRICS = {"loss", "accuracy", "macro_f1"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Pictures of digits with named classes and no text, in two domains, and models with two towers."""
    folder = tmp_path_factory.mktemp("saved")
    rows = pairs.captioned(0, 120, labelled=True).remove_columns("caption")
    DatasetDict(train=rows.select(range(80)), test=rows.select(range(80, 120))).save_to_disk(folder / "digits")
    rows.select(range(40, 80)).save_to_disk(folder / "target")
    pairs.captioned(80, 120, labelled=True).save_to_disk(folder / "captioned")
    for name, make in pairs.MODELS.items():
        make().save_pretrained(folder / name)
        pairs.processor().save_pretrained(folder / name)
    return folder


@pytest.fixture
def adapt(saved, tmp_path, monkeypatch):
    """Runs with these settings in a folder of its own in which the saved things have their bare names."""
    for item in saved.iterdir():
        (tmp_path / item.name).symlink_to(item)
    monkeypatch.chdir(tmp_path)

    def run(**settings):
        settings = {
            "model": "dual_encoder",
            "dataset": "digits",
            "learning_rate": 1e-2,
            "output_dir": "out",
            **settings,
        }
        Path("run.yaml").write_text(yaml.safe_dump(settings))
        return run_adaptation(parse_arguments(["run.yaml", *QUICK]))

    return run


def test_a_learnt_context_from_few_labels_to_evaluation(adapt):
    metrics = adapt(**COOP, labels_per_class=2)
    assert metrics.keys() >= METRICS
    config = json.loads(Path("out/model/adapter_config.json").read_text())
    assert config["peft_type"] == "TRAINABLE_TOKENS" and len(config["token_indices"]) == 2
    assert Path("out/model/adapter_model.safetensors").stat().st_size < 1000
    measured = run_evaluation("out/model", "digits")
    assert measured["accuracy"] == metrics["accuracy"]
    zero_shot = run_evaluation("out/model", "captioned", task="zero-shot-image-classification")
    assert zero_shot["zero_shot_accuracy"] == pytest.approx(metrics["accuracy"])
    assert zero_shot.keys() >= {"image_to_text_recall_1", "text_to_image_recall_5"}
    found = predict_rows("out/model", "target")
    assert set(found.columns["prediction"]) <= set(pairs.NAMES) and found.rows == 40
    card = ModelCard.load("out/model/README.md")
    assert card.data.pipeline_tag == "zero-shot-image-classification" and "2109.01134" in card.text
    loaded: dict = {}
    exec(card.text.split("```python\n")[1].split("```")[0], loaded)
    assert loaded["model"].active_peft_config.token_indices == config["token_indices"]


def test_a_model_trained_by_the_usual_text_is_measured_and_predicts_without_naming_its_task(adapt):
    metrics = adapt(model="clip", task="prompted-image-classification")
    measured = run_evaluation("out/model", "digits", batch_size=3)
    assert dict(measured) == pytest.approx(metrics, abs=1e-5) and measured.task == "prompted-image-classification"
    assert predict_rows("out/model", "target").rows == 40


def test_an_adapter_is_measured_by_its_own_text_and_not_by_its_base_s(adapt):
    task = {"task": "prompted-image-classification"}
    adapt(model="clip", prompts=["the number {}"], **task)
    lora = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "v_proj"]}
    words = {"prompts": ["it is no {} at all, is it"], "output_dir": "lora"}
    metrics = adapt(model="out/model", peft=lora, **words, **task)
    measured = run_evaluation("lora/model", "digits")
    assert dict(measured) == pytest.approx(metrics, abs=1e-5)
    export_folder("lora/model", "merged")
    assert dict(run_evaluation("merged", "digits")) == pytest.approx(metrics, abs=1e-5)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_other_models_are_trained_whole_and_know_their_texts(adapt, name):
    metrics = adapt(model=name, task="zero-shot-image-classification", prompts=["the number {}"])
    assert AutoModel.from_pretrained("out/model").config.class_prompt == "the number {}"
    measured = run_evaluation("out/model", "digits")
    assert measured.keys() >= METRICS and measured["accuracy"] == metrics["accuracy"]


def test_the_image_side_is_adapted_to_a_domain(adapt):
    settings = {
        "target_dataset": "target",
        "objectives": {"cdan": {}, "mcc": {}},
        "converters": {},
        "test_dataset": "digits",
    }
    metrics = adapt(**settings, test_split="test")
    assert METRICS - {"loss"} <= metrics.keys()
    adapted, start = (AutoModel.from_pretrained(name).state_dict() for name in ("out/model", "dual_encoder"))
    moved = {key for key, value in adapted.items() if not value.equal(start[key])}
    assert any(key.startswith("vision_model") for key in moved)


def test_the_image_tower_alone_under_a_linear_head(adapt):
    metrics = adapt(task="image-classification", backbone_freeze_ratio=1.0)
    assert "accuracy" in metrics
    model = ViTForImageClassification.from_pretrained("out/model")
    tower = AutoModel.from_pretrained("dual_encoder").vision_model.state_dict()
    assert all(value.equal(tower[key]) for key, value in model.vit.state_dict().items())
    with pytest.raises(ValueError, match="its image tower alone gets the head, and a `peft` adapter"):
        adapt(task="image-classification", peft={"peft_type": "LORA", "target_modules": "all-linear"}, overwrite=True)


def test_the_task_is_told_from_the_model(adapt):
    adapt(output_dir="first")
    for settings in ({}, {"task": "zero-shot-image-classification"}):
        experiment = parse_arguments(["run.yaml"], **settings)
        assert with_task(experiment).model.task == "prompted-image-classification"


def test_classes_that_no_training_named(adapt):
    """As the zero-shot classification of transformers tells them."""
    found = predict_rows("clip", "target", classes=["one", "two", "five"])
    model, processor = AutoModel.from_pretrained("clip").eval(), AutoProcessor.from_pretrained("clip")
    texts = processor.tokenizer([f"a photo of a {name}." for name in ("one", "two", "five")], return_tensors="pt")
    rows = load_from_disk("target").select_columns(["image", "label"])
    pixels = with_pixel_values(rows, tiny.IMAGE_SIZE, 1)[:]["pixel_values"]
    with torch.no_grad():
        logits = model(pixel_values=pixels, **texts).logits_per_image
    assert found.columns["prediction"] == [("one", "two", "five")[place] for place in logits.argmax(dim=1)]
    with pytest.raises(ValueError, match="was not trained to tell classes: name them"):
        predict_rows("clip", "target")
    with pytest.raises(ValueError, match="`classes` are two or more names"):
        predict_rows("clip", "target", classes=["one", "one"])


@pytest.mark.parametrize("name", ["dual_encoder", "clip", "siglip"])
def test_rows_are_compared_by_the_embeddings_of_their_pictures(adapt, name):
    """With a model that was never told classes, by the task that it is found to have or by the one that is named."""
    found = run_evaluation(name, "captioned", task="zero-shot-image-classification", retrieval=True)
    model = AutoModel.from_pretrained(name).eval()
    rows = load_from_disk("captioned")
    pixels = with_pixel_values(rows.select_columns(["image", "label"]), tiny.IMAGE_SIZE, 1)[:]["pixel_values"]
    with torch.no_grad():
        features = model.get_image_features(pixels)
    features = getattr(features, "pooler_output", features)
    assert found == pytest.approx(retrieval_metrics(features, torch.tensor(rows["label"])))
    assert found == pytest.approx(
        run_evaluation(name, "captioned", task="prompted-image-classification", retrieval=True)
    )
    episodes = {"ways": 3, "shots": 1, "queries": 1, "episodes": 20}
    assert run_evaluation(name, "captioned", few_shot=episodes)["accuracy"] > 0.2


WRONG = {
    "both": ({**COOP, "prompts": ["a {}"]}, "`prompts` are what the converter `coop` learns"),
    "several": ({"prompts": ["a {}", "the {}"]}, "a class is one text in training, got 2"),
    "random weights": (
        {"model": None, "architecture": {"model_type": "clip"}, "task": "zero-shot-image-classification"},
        "start from a saved `model`",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_go_together_is_refused_before_training(adapt, case):
    settings, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        adapt(**settings)
