"""Semantic segmentation from files to a saved folder, and in every command."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List
from PIL import Image as PILImage
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from hf_transfer.data.bundled import load, load_splits
from hf_transfer.data.images import undecoded
from hf_transfer.data.masks import read_mask
from hf_transfer.modeling.anatomy import linear_heads
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import Experiment, parse_arguments
from hf_transfer.runs.data import load_data
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.export import export_folder
from hf_transfer.runs.models import new_config
from hf_transfer.runs.predict import run_prediction
from hf_transfer.runs.task import with_task
from hf_transfer.tasks import task_named
from hf_transfer.tasks.arguments import DataArguments
from tests.drawings import CATEGORIES, scene_options

NAMES = ["background", *CATEGORIES]
SEGFORMER = {
    "model_type": "segformer",
    "image_size": 32,
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "sr_ratios": [1, 1],
    "hidden_sizes": [8, 16],
    "patch_sizes": [3, 3],
    "strides": [2, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
    "decoder_hidden_size": 16,
}


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    return tmp_path_factory.mktemp("drawings")


@pytest.fixture(scope="module")
def folder(drawings, tmp_path_factory):
    """`train` and `test` with pictures and masks of the same names, the masks with a palette, and names of classes."""
    place = tmp_path_factory.mktemp("files")
    for split, rows in load_splits("emoji_masks", options=scene_options(drawings)).items():
        for kind in ("images", "masks"):
            (place / split / kind).mkdir(parents=True)
        for number, row in enumerate(rows):
            row["image"].save(place / split / "images" / f"{number}.png")
            mask = PILImage.fromarray(np.asarray(row["mask"]))
            mask.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
            mask.save(place / split / "masks" / f"{number}.png")
    (place / "names.json").write_text(json.dumps(dict(enumerate(NAMES))))
    return place


def experiment(output, **changes) -> Experiment:
    usual = {
        "architecture": json.dumps(SEGFORMER),
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "output_dir": str(output),
    }
    words = []
    for name, value in {**usual, **changes}.items():
        if value is not None:
            words += [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return parse_arguments(words)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "run"
    names = {"id2label": str(folder / "names.json")}
    return run_adaptation(experiment(output, dataset=str(folder), max_steps=30, learning_rate=2e-2, **names))


def test_from_a_folder_of_files_to_a_saved_model(trained, folder):
    assert set(trained) >= {"mean_iou", "mean_accuracy", "overall_accuracy", "loss"}
    # nothing but background is 0.77 of the pixels here
    assert trained["overall_accuracy"] > 0.8
    model = AutoModelForSemanticSegmentation.from_pretrained(trained.folder)
    assert list(model.config.id2label.values()) == NAMES and model.config.semantic_loss_ignore_index == 255
    processor = AutoImageProcessor.from_pretrained(trained.folder)
    picture = PILImage.open(folder / "test" / "images" / "0.png")
    outputs = model(**processor(picture, return_tensors="pt"))
    (answer,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[picture.size[::-1]])
    assert answer.shape == (32, 32)
    card = (trained.folder / "README.md").read_text()
    assert "pipeline_tag: image-segmentation" in card and "mean_iou" in card and "Smileys & Emotion" in card


def test_evaluation_gives_the_same_figures_as_the_end_of_the_run(trained, folder):
    found = run_evaluation(str(trained.folder), str(folder))
    for name in ("mean_iou", "overall_accuracy", "loss"):
        assert found[name] == pytest.approx(trained[name], abs=1e-5)


def test_predictions_are_shares_and_masks(trained, folder, tmp_path):
    output = tmp_path / "answers.csv"
    assert run_prediction(str(trained.folder), str(folder), output=output) == 8
    rows = list(csv.DictReader(output.open()))
    assert list(rows[0]) == ["row", *NAMES] and sum(float(rows[0][name]) for name in NAMES) == pytest.approx(1)
    mask = np.asarray(PILImage.open(tmp_path / "answers" / "7.png"))
    assert mask.shape == (32, 32) and mask.max() <= 2
    output.unlink()
    with pytest.raises(FileExistsError, match="answers` exists"):
        run_prediction(str(trained.folder), str(folder), output=output)


def test_pixels_of_two_domains_are_aligned(drawings, tmp_path):
    options = {name: scene_options(drawings, name) for name in ("google", "twitter")}
    run = experiment(
        tmp_path / "run",
        dataset="emoji_masks",
        dataset_options=options["google"],
        target_dataset="emoji_masks",
        target_options=options["twitter"],
        objectives={"dann": {"hidden_size": 8}, "mcc": {}, "advent": {"width": 4}, "dacs": {}},
        fourier_adaptation=0.05,
        validation_rows=2,
        max_steps=2,
        diagnostics="true",
        task="image-segmentation",
    )
    result = run_adaptation(run)
    results = json.loads((result.folder / "results.json").read_text())
    assert {"information_maximization", "entropy", "source_risk", "snd"} <= set(results["validators"])
    assert set(results["class_shares"]) >= set(NAMES)
    assert 0 <= result["mean_iou"] <= 1 and (tmp_path / "run" / "figures" / "domains.png").is_file()


def test_the_task_is_told_by_the_masks(folder, tmp_path):
    assert with_task(experiment(tmp_path / "run", dataset=str(folder))).model.task == "image-segmentation"


def rows(masks, size=(8, 6), **columns) -> Dataset:
    images = [PILImage.new("RGB", size, (10 * place, 0, 0)) for place in range(len(masks))]
    features = Features({"image": Image(), "mask": Image()})
    return Dataset.from_dict({"image": images, "mask": masks}, features=features)


def mask(*values, shape=(6, 8), mode=None) -> PILImage.Image:
    pixels = np.resize(np.array(values, dtype=np.uint8), shape)
    picture = PILImage.fromarray(pixels)
    return picture if mode is None else picture.convert(mode)


def stored(picture: PILImage.Image, kind: str) -> dict:
    file = io.BytesIO()
    picture.save(file, format=kind)
    return {"bytes": file.getvalue(), "path": None}


def numbers(*values) -> dict:
    return stored(PILImage.fromarray(np.resize(np.array(values, dtype=np.int32), (6, 8))), "TIFF")


@pytest.mark.parametrize(
    ("masks", "changes", "message"),
    [
        ([mask(0, 1), mask(0, 1, shape=(4, 8))], {}, r"row 1 .*has 8 x 4 pixels and its picture 8 x 6"),
        ([mask(0, 1), mask(0, 7)], {"id2label": {0: "a", 1: "b"}}, r"row 1 .*holds the classes \[7\].* 0 to 1"),
        ([mask(0, 1, mode="RGB")], {}, r"row 0 .*is a picture of colours \(mode RGB\)"),
        ([mask(0, 0)], {}, "at least two classes apart, got"),
        ([mask(0, 255)], {"id2label": {0: "a", 1: "b"}}, "hold 0 and 255 alone, and 255 marks pixels without a class"),
        ([numbers(0, -1)], {}, "row 0 .*holds the numbers -1 to 0, and classes are 0 to 65535"),
        ([numbers(0, 70000)], {"ignore_index": 3}, "row 0 .*holds the numbers 0 to 70000"),
        ([stored(mask(0, 1, 2), "JPEG")], {}, "row 0 .*is a JPEG picture, which changes the numbers"),
        ([mask(0, 1)], {"id2label": {0: "a", 2: "b"}}, "should name the classes 0 to 1, got the numbers"),
        ([mask(0, 1)], {"label_column": "maps"}, "have no column `maps` of pictures"),
        ([mask(0, 1)], {"labels_per_class": 1}, "`labels_per_class` is of rows with a class"),
    ],
)
def test_what_is_wrong_with_masks_is_said_before_training(masks, changes, message, tmp_path, monkeypatch):
    rows(masks).save_to_disk(tmp_path / "data")
    monkeypatch.setattr("transformers.Trainer.train", lambda *args, **kwargs: pytest.fail("training began"))
    with pytest.raises(ValueError, match=message):
        run_adaptation(
            experiment(tmp_path / "run", dataset=str(tmp_path / "data"), task="image-segmentation", **changes)
        )


def test_an_ignored_number_teaches_nothing(tmp_path):
    """Of the pixels, those marked by 9 are left out; what is left is all of class 1."""
    masks = [mask(1, 1, 9, 9) for _ in range(4)]
    rows(masks).save_to_disk(tmp_path / "data")
    changes = {"ignore_index": 9, "id2label": {0: "a", 1: "b"}, "test_rows": 2, "max_steps": 20}
    run = experiment(tmp_path / "run", dataset=str(tmp_path / "data"), task="image-segmentation", **changes)
    result = run_adaptation(run._replace(config=run.config))
    table = json.loads((result.folder / "results.json").read_text())
    assert table["overall_accuracy"] == 1.0 and table["mean_iou"] == 1.0
    # `evaluate` has no such option: the model remembers it, also where it is the number of a class
    changes |= {"ignore_index": 0, "id2label": None, "test_rows": 0}
    rows([mask(1, 2, 0, 0) for _ in range(4)]).save_to_disk(tmp_path / "zeros")
    run = experiment(tmp_path / "again", dataset=str(tmp_path / "zeros"), task="image-segmentation", **changes)
    found = run_evaluation(str(run_adaptation(run).folder), str(tmp_path / "zeros")).per_class
    assert found["0"]["rows"] == 0 and found["1"]["rows"] > 0


def test_an_adapter_and_what_is_exported_of_it_remember_the_ignored_number(folder, trained, tmp_path):
    """Its base ignores no number."""
    rows([mask(1, 2, 9, 9) for _ in range(4)]).save_to_disk(tmp_path / "nines")
    lora = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "v_proj", "query", "value"]}
    changes = {"architecture": None, "model": str(trained.folder), "peft": lora, "task": "image-segmentation"}
    names = dict(enumerate(NAMES))
    run = experiment(tmp_path / "run", dataset=str(tmp_path / "nines"), ignore_index=9, id2label=names, **changes)
    adapter = run_adaptation(run).folder
    exported = export_folder(adapter, tmp_path / "merged")
    found = [run_evaluation(str(place), str(tmp_path / "nines")) for place in (adapter, exported)]
    assert all(one.per_class[NAMES[0]]["rows"] == 0 and one.per_class[NAMES[1]]["rows"] > 0 for one in found)
    assert dict(found[0]) == pytest.approx(found[1], abs=1e-5)


def test_masks_without_any_class_are_refused(trained, tmp_path):
    rows([mask(255, 255) for _ in range(4)]).save_to_disk(tmp_path / "data")
    changes = {"dataset": str(tmp_path / "data"), "task": "image-segmentation", "id2label": {0: "a", 1: "b"}}
    with pytest.raises(ValueError, match="no pixel of the training rows has a class"):
        run_adaptation(experiment(tmp_path / "run", **changes))
    with pytest.raises(ValueError, match="nothing of the 4 evaluation rows can be measured by .'mean_iou'"):
        run_evaluation(str(trained.folder), str(tmp_path / "data"))


def test_masks_without_pictures_are_named(folder, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    mask(0, 1).save(tmp_path / "data" / "masks" / "a.png")
    with pytest.raises(ValueError, match=r"masks/a.png` has no picture of the same name \(1 such files\)"):
        load(str(tmp_path / "data"))


def test_classes_are_matched_by_name(drawings, tmp_path, trained):
    """Rows that number the same classes otherwise are measured alike."""
    options = scene_options(drawings, categories=list(CATEGORIES[::-1]), rows=2)
    again = scene_options(drawings, rows=2)
    first = load("emoji_masks", "test", options=again)
    other = load("emoji_masks", "test", options=options)
    swapped = np.array([0, 2, 1], dtype=np.uint8)
    same = [PILImage.fromarray(swapped[np.asarray(one)]) for one in first["mask"]]
    other = Dataset.from_dict(
        {"image": first["image"][:], "mask": same, "classes": first["classes"][:]},
        features=Features({**first.features, "classes": other.features["classes"]}),
    )
    first.save_to_disk(tmp_path / "first")
    other.save_to_disk(tmp_path / "other")
    found = [run_evaluation(str(trained.folder), str(tmp_path / name)) for name in ("first", "other")]
    assert found[0] == found[1]
    assert torch.tensor(list(found[0].values())).isfinite().all()


def named_rows(masks, names) -> Dataset:
    """Rows that say which class every number of their masks is."""
    data = rows(masks)
    classes = List(ClassLabel(names=names))
    return data.add_column("classes", [[0]] * len(masks), feature=classes)


def read_values(data: Dataset) -> list[int]:
    return np.unique([read_mask(cell, "mask") for cell in undecoded(data, "labels")["labels"]]).tolist()


@pytest.mark.parametrize("told", [None, {0: "ground", 1: "cat", 2: "dog"}])
def test_an_ignored_class_is_that_of_the_name_in_other_rows(told, tmp_path):
    names = ["ground", "cat", "dog"]
    named_rows([mask(0, 1, 2)], names).save_to_disk(tmp_path / "train")
    named_rows([mask(1, 1, 2, 2)], ["cat", "ground", "dog"]).save_to_disk(tmp_path / "test")
    paths = {"dataset": str(tmp_path / "train"), "test_dataset": str(tmp_path / "test")}
    task = task_named("image-segmentation")
    read = load_data(DataArguments(**paths, ignore_index=0, id2label=told), task=task)
    assert read.class_names == names and read_values(read.train) == [1, 2, 255]
    assert read_values(read.test) == [2, 255], "1 is the ground there, which is ignored, and 2 the dog"
    named_rows([mask(0, 1, 2)], ["cat", "ground", "dog"]).save_to_disk(tmp_path / "all")
    read = load_data(DataArguments(**{**paths, "test_dataset": str(tmp_path / "all")}, id2label=told), task=task)
    assert read_mask(undecoded(read.test, "labels")["labels"][0], "mask")[0, :3].tolist() == [1, 0, 2]
    # numbers without names are those of the training masks
    rows([mask(0, 1, 2)]).save_to_disk(tmp_path / "plain")
    read = load_data(
        DataArguments(**{**paths, "test_dataset": str(tmp_path / "plain")}, ignore_index=0, id2label=told), task=task
    )
    assert read_values(read.test) == [1, 2, 255]


def test_a_saved_model_ignores_the_class_of_the_name(tmp_path):
    train = named_rows([mask(0, 1, 2)] * 4, ["ground", "cat", "dog"])
    train.save_to_disk(tmp_path / "train")
    named_rows([mask(1, 0, 2)] * 4, ["cat", "ground", "dog"]).save_to_disk(tmp_path / "other")
    run = experiment(
        tmp_path / "run", dataset=str(tmp_path / "train"), task="image-segmentation", ignore_index=0, max_steps=2
    )
    result = run_adaptation(run)
    first, other = (run_evaluation(str(result.folder), str(tmp_path / name)) for name in ("train", "other"))
    assert first == other and other.per_class["ground"]["rows"] == 0 and other.per_class["cat"]["rows"] > 0


@pytest.mark.parametrize(
    ("names", "other", "changes", "message"),
    [
        (["a", "b"], None, {"id2label": {0: "b", 1: "a"}}, "`id2label` says that 1 is 'a', and the column `classes`"),
        (
            None,
            ["b", "a"],
            {"id2label": {0: "a", 1: "c"}},
            r"have the classes \['b'\], which the training dataset has",
        ),
        (None, ["b", "a"], {"ignore_index": 0}, "is a class of the training masks without a name, and is 'b' in"),
    ],
)
def test_names_that_say_something_else_are_refused(names, other, changes, message, tmp_path):
    for place, told in (("train", names), ("test", other)):
        data = rows([mask(0, 1)]) if told is None else named_rows([mask(0, 1)], told)
        data.save_to_disk(tmp_path / place)
    paths = {"dataset": str(tmp_path / "train"), "test_dataset": str(tmp_path / "test")}
    with pytest.raises(ValueError, match=message):
        load_data(DataArguments(**paths, **changes), task=task_named("image-segmentation"))


FLOWFORMER = {"model_type": "flowformer", "modality": "image", "hidden_sizes": [8, 16], "depths": [1, 1]}
FLOWFORMER |= {
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 4,
    "num_channels": 3,
    "out_features": ["stage1", "stage2"],
}
UPERNET = {"model_type": "upernet", "image_size": 32, "hidden_size": 8, "pool_scales": [1, 2]}


def test_a_dense_head_on_the_pyramid_of_flowformer(folder, tmp_path):
    architecture = {**UPERNET, "use_auxiliary_head": False, "backbone_config": FLOWFORMER}
    run = experiment(tmp_path / "run", dataset=str(folder), architecture=json.dumps(architecture), max_steps=2)
    result = run_adaptation(run)
    model = AutoModelForSemanticSegmentation.from_pretrained(result.folder)
    assert type(model.backbone).__name__ == "FlowformerBackbone" and 0 <= result["mean_iou"] <= 1


def test_an_auxiliary_head_is_no_head_of_the_task():
    three = {"hidden_sizes": [8, 16, 16], "depths": [1, 1, 1], "out_features": ["stage1", "stage2", "stage3"]}
    config = new_config({**UPERNET, "backbone_config": {**FLOWFORMER, **three}, "num_labels": 3})
    model = AutoModelForSemanticSegmentation.from_config(config)
    assert model.auxiliary_head is not None
    (head,) = linear_heads(model)
    assert head is model.decode_head.classifier


@pytest.mark.parametrize(
    ("numbers", "arguments", "message"),
    [
        ([0, 1, 2, 65535], {}, "hold 4 numbers up to 65535, which would be 65536 classes: .* `ignore_index: 65535`"),
        ([0, 128], {}, "hold 2 numbers up to 128, which would be 129 classes"),
        (
            [0, 1, 255, 65535],
            {"ignore_index": 65535, "id2label": {number: f"c{number}" for number in range(256)}},
            "pixels of class 255 would be left out",
        ),
        ([0, 1], {"id2label": {number: f"c{number}" for number in range(32768)}}, "at most 32767 classes"),
    ],
    ids=["no class", "half grey", "class 255", "too many"],
)
def test_numbers_that_are_no_classes_are_refused_before_training(numbers, arguments, message, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / "train" / kind).mkdir(parents=True)
    PILImage.new("RGB", (32, 32)).save(tmp_path / "train" / "images" / "0.png")
    mask = np.resize(np.array(numbers, dtype=np.uint16), (32, 32))
    PILImage.fromarray(mask).save(tmp_path / "train" / "masks" / "0.png")
    with pytest.raises(ValueError, match=message):
        load_data(DataArguments(dataset=str(tmp_path), **arguments), task=task_named("image-segmentation"))
