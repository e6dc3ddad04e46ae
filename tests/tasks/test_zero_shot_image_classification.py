"""Runs of `hf-transfer pretrain` on pictures with captions, from the arguments to the saved folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from datasets import DatasetDict, Value
from huggingface_hub import ModelCard
from transformers import (
    AutoModel,
    AutoProcessor,
    CLIPModel,
    ConvNextConfig,
    ConvNextModel,
    SiglipModel,
    VisionTextDualEncoderModel,
    ViTModel,
)

from hf_transfer.runs.adapt import run_pretraining
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.saving import read_results
from hf_transfer.runs.task import with_task
from tests import tiny
from tests.pretraining import pairs
from tests.runs.folders import QUICK, save_image_model

DUAL = {"model_type": "vision-text-dual-encoder", "projection_dim": 8}
VISION = {"model_type": "vit", **pairs.SMALL, **pairs.PIXELS}
TEXT = {"model_type": "bert", **pairs.SMALL, "max_position_embeddings": 12}
NEW = {"architecture": {**DUAL, "vision_config": VISION, "text_config": TEXT}, "tokenizer": {"vocab_size": 300}}
RECALLS = {f"{a}_recall_{k}" for a in ("image_to_text", "text_to_image") for k in (1, 5)}
CHANCE = {"recall_1_by_chance", "recall_5_by_chance"}
ZERO_SHOT = {"zero_shot_accuracy", "zero_shot_by_chance", "zero_shot_largest_class"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Captioned digits with and without classes, a model with two towers, and towers."""
    folder = tmp_path_factory.mktemp("saved")
    labelled = DatasetDict(train=pairs.captioned(0, 24, labelled=True), test=pairs.captioned(24, 40, labelled=True))
    labelled.save_to_disk(folder / "labelled")
    pairs.captioned(0, 24).save_to_disk(folder / "captioned")
    whole = pairs.dual_encoder()
    for name, model in {"both": whole, "vit": whole.vision_model, "bert": whole.text_model}.items():
        model.save_pretrained(folder / name)
    pairs.processor().save_pretrained(folder / "both")
    pairs.processor().image_processor.save_pretrained(folder / "vit")
    pairs.tokenizer().save_pretrained(folder / "bert")
    return folder


@pytest.fixture
def pretrain(saved, tmp_path, monkeypatch):
    """Runs with these settings in a folder of its own in which the saved things have their bare names."""
    for item in saved.iterdir():
        (tmp_path / item.name).symlink_to(item)
    monkeypatch.chdir(tmp_path)

    def run(dataset="labelled", **settings):
        settings = {"objectives": {"clip": {}}, "output_dir": "out", "learning_rate": 1e-3, **settings}
        Path("run.yaml").write_text(yaml.safe_dump({"dataset": dataset, **settings}))
        return run_pretraining(parse_arguments(["run.yaml", *QUICK]))

    return run


def test_new_towers_and_a_new_tokenizer(pretrain):
    metrics = pretrain(**NEW, prompts=["this is {}", "{}"], test_split="test")
    assert metrics.keys() == RECALLS | CHANCE | ZERO_SHOT == read_results("out/model").keys()
    assert metrics["recall_5_by_chance"] == 5 / 16 and metrics["zero_shot_by_chance"] == 0.1
    model, processor = AutoModel.from_pretrained("out/model"), AutoProcessor.from_pretrained("out/model")
    assert isinstance(model, VisionTextDualEncoderModel)
    assert model.config.text_config.vocab_size == len(processor.tokenizer) <= 300
    assert model.config.text_config.hidden_size == 16  # what the user gives stays beside what the data give
    rows = pairs.captioned(0, 3)
    inputs = processor(images=rows["image"][:], text=rows["caption"][:], padding=True, return_tensors="pt")
    assert inputs["input_ids"][0][inputs["attention_mask"][0].sum() - 1] == processor.tokenizer.eos_token_id
    assert model(**inputs).logits_per_image.shape == (3, 3)
    card = ModelCard.load("out/model/README.md")
    assert card.data.pipeline_tag == "zero-shot-image-classification" and "2103.00020" in card.text
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == pytest.approx(metrics, abs=1e-6)


@pytest.mark.parametrize("kind, loaded", [("clip", CLIPModel), ("siglip", SiglipModel)])
def test_new_models_of_other_kinds(pretrain, kind, loaded):
    architecture = {
        "model_type": kind,
        "vision_config": {**pairs.SMALL, **pairs.PIXELS},
        "text_config": {**pairs.SMALL, "max_position_embeddings": 12},
    }
    architecture["text_config"] |= {"projection_size": 16} if kind == "siglip" else {}
    run = pretrain("captioned", architecture=architecture, tokenizer={"vocab_size": 300}, objectives={kind: {}})
    assert run == {} and type(AutoModel.from_pretrained("out/model")) is loaded


def test_towers_of_saved_models_with_the_image_tower_locked(pretrain):
    architecture = {**DUAL, "vision_config": "vit", "text_config": "bert"}
    metrics = pretrain(architecture=architecture, converters={"lit": {}}, test_rows=8, test_split=None)
    assert metrics.keys() == RECALLS | CHANCE | ZERO_SHOT
    model, start = AutoModel.from_pretrained("out/model"), ViTModel.from_pretrained("vit")
    for key, value in start.state_dict().items():
        assert value.equal(model.vision_model.state_dict()[key]), key
    whole = pairs.dual_encoder().text_model.state_dict()
    assert any(not value.equal(model.text_model.state_dict()[key]) for key, value in whole.items())
    assert AutoProcessor.from_pretrained("out/model").tokenizer.get_vocab() == pairs.tokenizer().get_vocab()
    card = Path("out/model/README.md").read_text()
    assert "| vision_model started from | `vit` |" in card and "| text_model started from | `bert` |" in card
    assert "| lit | [arXiv:2111.07991]" in card


def test_a_convolutional_tower_locked(pretrain):
    """Its configuration says nothing of the width that the projection needs."""
    sizes = {"hidden_sizes": [8, 12], "depths": [1, 1], "num_channels": 1, "image_size": tiny.IMAGE_SIZE}
    config = ConvNextConfig(**sizes, num_stages=2, patch_size=2)
    ConvNextModel(config).save_pretrained("convnext")
    pairs.processor().image_processor.save_pretrained("convnext")
    architecture = {**DUAL, "vision_config": "convnext", "text_config": "bert"}
    metrics = pretrain(architecture=architecture, converters={"lit": {}}, test_rows=8, test_split=None)
    assert metrics.keys() == RECALLS | CHANCE | ZERO_SHOT
    model, start = AutoModel.from_pretrained("out/model"), ConvNextModel.from_pretrained("convnext")
    assert model.config.vision_config.hidden_size == 12
    assert all(value.equal(model.vision_model.state_dict()[key]) for key, value in start.state_dict().items())
    found = run_evaluation("out/model", "captioned", task="zero-shot-image-classification")
    assert found.keys() == RECALLS | CHANCE


def test_a_saved_model_goes_on_and_its_task_is_told_from_model_and_rows(pretrain):
    run = pretrain("captioned", model="both", objectives={"siglip": {}}, test_rows=8)
    assert run.keys() == RECALLS | CHANCE
    experiment = parse_arguments(["run.yaml", *QUICK])
    assert with_task(experiment, pretraining=True).model.task == "zero-shot-image-classification"


def test_a_tokenizer_may_be_named(pretrain):
    pretrain("captioned", architecture=NEW["architecture"], tokenizer="bert")
    assert AutoModel.from_pretrained("out/model").config.text_config.vocab_size == len(pairs.tokenizer())


WRONG = {
    "objectives": ({"objectives": {}}, "name `clip` or `siglip` in `objectives`"),
    "prompts": ({"prompts": ["a photo"]}, "`prompts` should be texts with one {}"),
    "text_columns": ({"text_columns": ["name"]}, "an image needs one column with its text, got .*'name'"),
    "no tokenizer": ({"tokenizer": None}, "a new text tower has no tokenizer: give `tokenizer`"),
    "a field of a tower": (
        {"architecture": {**DUAL, "vision_config": {**VISION, "hiden_size": 8}, "text_config": TEXT}},
        r"ViTConfig has no \['hiden_size'\]",
    ),
    "a tower without one width": (
        {"architecture": {**DUAL, "vision_config": {"model_type": "resnet"}, "text_config": TEXT}},
        "a resnet cannot be the vision_config|the size of the images is not known",
    ),
    "a decoder": (
        {
            "architecture": {
                **DUAL,
                "vision_config": VISION,
                "text_config": {"model_type": "gpt2", "n_embd": 16, "n_head": 2},
            }
        },
        "cannot embed these rows .*both of its towers should give a `pooler_output`",
    ),
    "no such tower": (
        {"architecture": {**DUAL, "vision_config": "nowhere", "text_config": TEXT}},
        "cannot load `nowhere` as vision_config",
    ),
    "neither name nor fields": (
        {"architecture": {**DUAL, "vision_config": 3, "text_config": TEXT}},
        "vision_config should be a mapping of fields or the name of a model, got 3",
    ),
    "one tower": ({"architecture": {"model_type": "bert"}}, "a bert has no image tower"),
    "block_size": ({"block_size": 4}, "block_size"),
}


@pytest.mark.parametrize("task", ["zero-shot-image-classification", None])
@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_told_before_training(pretrain, monkeypatch, case, task):
    def train(*args, **kwargs):
        raise AssertionError("training began")

    monkeypatch.setattr("transformers.Trainer.train", train)
    settings, message = WRONG[case]
    if case == "one tower" and task is None:
        pytest.skip("without towers the run is of another task")
    with pytest.raises(ValueError, match=message):
        pretrain(**{**NEW, "test_split": "test", "task": task, **settings})


def test_prompts_are_of_no_other_task(pretrain):
    with pytest.raises(ValueError, match="prompts"):
        pretrain("labelled", model="vit", task="image-classification", prompts=["a {}"], objectives={})


def test_a_missing_caption_is_told_before_training(pretrain):
    rows = pairs.captioned(0, 10)
    captions = [None if place == 7 else text for place, text in enumerate(rows["caption"])]
    rows = rows.remove_columns("caption").add_column("caption", captions)
    rows.save_to_disk("holes")
    with pytest.raises(ValueError, match="column `caption` of the given dataset has no caption in row 7"):
        pretrain("holes", **NEW)


def test_classes_without_names_are_not_told(pretrain):
    rows = pairs.captioned(0, 24, labelled=True)
    rows = rows.cast_column("label", Value("int64"))
    rows.save_to_disk("numbers")
    assert pretrain("numbers", **NEW, test_rows=8).keys() == RECALLS | CHANCE


def test_a_saved_model_is_evaluated_as_the_run_did(pretrain):
    settings = {"prompts": ["this is {}", "{}"], "test_split": "test", "max_length": 9}
    metrics = pretrain(**NEW, **settings)
    again = run_evaluation("out/model", "labelled", prompts=settings["prompts"], max_length=9, batch_size=5)
    assert again == pytest.approx(metrics, abs=1e-6) and again.keys() == metrics.keys()


def test_images_with_classes_alone_are_classified_by_their_names(pretrain):
    pretrain("captioned", **NEW)
    labelled = pairs.captioned(0, 20, labelled=True)
    labelled.save_to_disk("both_columns")
    labelled.remove_columns("caption").save_to_disk("classes")
    found = run_evaluation("out/model", "classes", prompts=["this is {}"])
    whole = run_evaluation("out/model", "both_columns", prompts=["this is {}"])
    assert found.keys() == ZERO_SHOT and found == {name: whole[name] for name in ZERO_SHOT}
    labelled.select_columns("image").save_to_disk("images")
    with pytest.raises(ValueError, match=r"neither a text nor a class with a name, only \['image'\]"):
        run_evaluation("out/model", "images")


def test_prompts_of_an_evaluation_are_of_this_task_alone(pretrain, saved):
    save_image_model(Path("digits_model"), tiny.vit())
    with pytest.raises(ValueError, match="`prompts` are for zero-shot-image-classification, and this task is image-"):
        run_evaluation("digits_model", "labelled", prompts=["a {}"])
    with pytest.raises(ValueError, match="`prompts` should be texts with one {}"):
        run_evaluation("both", "labelled", prompts=["a"])


def test_no_command_is_named_that_such_a_model_does_not_know(pretrain, capsys):
    pretrain("captioned", **NEW)
    said = capsys.readouterr().err
    assert "hf-transfer evaluate" in said and "hf-transfer predict" not in said
