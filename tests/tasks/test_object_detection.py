"""Object detection from files to a saved folder, and in every command."""

import csv
import json
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForObjectDetection,
    EvalPrediction,
    ResNetConfig,
    RTDetrConfig,
    RTDetrModel,
    YolosImageProcessorPil,
)

from hf_transfer.data.bundled import load, load_splits
from hf_transfer.data.objects import arranged_objects, category_names, object_column
from hf_transfer.modeling.loading import frozen
from hf_transfer.ranking.features import FeatureExtractor
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.data import load_data
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.models import load_model
from hf_transfer.runs.predict import run_prediction
from hf_transfer.runs.task import with_task
from hf_transfer.tasks import task_named
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.tasks.object_detection import DetectionMetrics, of_one_size, scored_boxes
from tests.drawings import CATEGORIES, scene_options
from tests.marks import slow
from tests.tasks.test_image_segmentation import experiment

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
YOLOS = {"model_type": "yolos", "image_size": [32, 32], "patch_size": 8, "num_detection_tokens": 4, **SIZES}


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    return tmp_path_factory.mktemp("drawings")


@pytest.fixture(scope="module")
def coco(drawings, tmp_path_factory):
    """train.json and test.json in the form of COCO, whose categories are numbered with holes, beside `images`."""
    place = tmp_path_factory.mktemp("coco")
    (place / "images").mkdir()
    for split, rows in load_splits("emoji_boxes", options=scene_options(drawings)).items():
        images, annotations = [], []
        for number, row in enumerate(rows):
            name = f"{split}{number}.png"
            row["image"].save(place / "images" / name)
            images.append({"id": number, "file_name": name, "width": 32, "height": 32})
            for box, kind in zip(row["objects"]["bbox"], row["objects"]["category"]):
                found = {"id": len(annotations), "image_id": number, "bbox": box, "category_id": 7 + 3 * kind}
                annotations.append({**found, "iscrowd": 0})
        categories = [{"id": 7 + 3 * place, "name": name} for place, name in enumerate(CATEGORIES)]
        parts = {"images": images, "annotations": annotations, "categories": categories}
        (place / f"{split}.json").write_text(json.dumps(parts))
    return place


def detection(output, **changes):
    return experiment(output, **{"architecture": json.dumps(YOLOS), **changes})


@pytest.fixture(scope="module")
def trained(coco, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "run"
    files = {"dataset": str(coco / "train.json"), "test_dataset": str(coco / "test.json")}
    return run_adaptation(detection(output, **files, max_steps=20, learning_rate=3e-3))


def test_from_a_coco_file_to_a_saved_model(trained, coco):
    assert set(trained) >= {"map", "map_50", "map_75", "loss"}
    model = AutoModelForObjectDetection.from_pretrained(trained.folder)
    assert list(model.config.id2label.values()) == list(CATEGORIES)
    processor = AutoImageProcessor.from_pretrained(trained.folder)
    picture = PILImage.open(coco / "images" / "test0.png")
    outputs = model(**processor([picture], return_tensors="pt"))
    (found,) = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[(32, 32)])
    assert found["boxes"].shape == (4, 4)
    card = (trained.folder / "README.md").read_text()
    assert "pipeline_tag: object-detection" in card and "map_50" in card


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_evaluation_gives_the_same_figures_as_the_end_of_the_run(trained, coco, batch_size):
    found = run_evaluation(str(trained.folder), str(coco / "test.json"), batch_size=batch_size)
    assert dict(found) == pytest.approx(trained, abs=1e-5)
    of_classes = found.per_class.values()
    assert set(found.per_class) <= set(CATEGORIES) and all(one["boxes"] > 0 for one in of_classes)
    assert np.mean([one["ap"] for one in of_classes]) == pytest.approx(found["map"])


def test_predictions_are_boxes(trained, coco, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_transfer.tasks.object_detection.LEAST_SCORE", 0.0)
    output = tmp_path / "answers.csv"
    run_prediction(str(trained.folder), str(coco / "test.json"), output=output)
    rows = list(csv.DictReader(output.open()))
    assert len(rows) == 8 * 4 and set(rows[0]) == {"row", "prediction", "probability", "x", "y", "width", "height"}
    for row in rows:
        assert row["prediction"] in CATEGORIES and 0 <= float(row["x"]) <= float(row["x"]) + float(row["width"]) <= 32


@pytest.mark.parametrize(("readout", "more"), [(None, {"mcc": {}}), slow("pictures", {})])
def test_queries_or_pictures_of_two_domains_are_aligned(readout, more, drawings, tmp_path):
    options = {name: scene_options(drawings, name) for name in ("google", "twitter")}
    run = detection(
        tmp_path / "run",
        dataset="emoji_boxes",
        dataset_options=options["google"],
        target_dataset="emoji_boxes",
        target_options=options["twitter"],
        objectives={"dann": {"hidden_size": 8}, **more},
        readout=readout,
        validation_rows=4,
        max_steps=2,
    )
    assert with_task(run).model.task == "object-detection"
    result = run_adaptation(run)
    results = json.loads((result.folder / "results.json").read_text())
    assert results["validators"] and 0 <= result["map"] <= 1


@pytest.mark.parametrize(
    "peft", [{"peft_type": "LORA", "r": 2, "target_modules": "all-linear"}, {"peft_type": "RESIDUAL", "r": 2}]
)
def test_adapters_train_the_heads_too(peft, trained, coco, tmp_path):
    changes = {"architecture": None, "model": str(trained.folder), "dataset": str(coco / "train.json"), "peft": peft}
    result = run_adaptation(detection(tmp_path / "run", **changes))
    saved = load_file(result.folder / "adapter_model.safetensors")
    assert {"class_labels_classifier", "bbox_predictor"} <= {part for name in saved for part in name.split(".")}
    found = run_evaluation(str(result.folder), str(coco / "test.json"))
    assert 0 <= found["map"] <= 1


def test_a_head_of_every_decoder_layer_is_trained_beside_an_adapter(coco, tmp_path):
    """RT-DETR keeps its heads in lists, which PEFT cannot save as they are."""
    backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
    small = {"d_model": 8, "num_queries": 4, "num_denoising": 0, "decoder_layers": 2, "image_size": 32}
    small |= {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
    small |= {f"{part}_ffn_dim": 8 for part in ("encoder", "decoder")}
    architecture = {"model_type": "rt_detr", "encoder_in_channels": [8] * 3, "decoder_in_channels": [8] * 3, **small}
    architecture["encoder_hidden_dim"] = 8
    architecture["backbone_config"] = {**backbone, "out_features": ["stage2", "stage3", "stage4"]}
    changes = {"architecture": json.dumps(architecture), "dataset": str(coco / "train.json"), "max_steps": 1}
    start = run_adaptation(detection(tmp_path / "start", **changes)).folder
    norms = {name for name in load_file(start / "model.safetensors") if "backbone" in name and "normalization" in name}
    trained = {name for name in norms if name.endswith("num_batches_tracked")}  # frozen ones count none
    assert norms and len(trained) == sum(name.endswith("running_mean") for name in norms)
    lora = {"peft_type": "LORA", "r": 2, "target_modules": "all-linear"}
    changes |= {"architecture": None, "model": str(start), "peft": lora, "learning_rate": 0.1}
    made = run_adaptation(detection(tmp_path / "run", **changes)).folder
    heads = {name: value for name, value in load_file(made / "adapter_model.safetensors").items() if "_embed." in name}
    before = load_file(start / "model.safetensors")
    for layer in range(2):
        now, then = (
            next(value for name, value in part.items() if name.endswith(f".class_embed.{layer}.weight"))
            for part in (heads, before)
        )
        assert now.shape == then.shape and not now.equal(then)
    assert 0 <= run_evaluation(str(made), str(coco / "test.json"))["map"] <= 1


def rows(objects, categories=None) -> Dataset:
    names = ClassLabel(names=categories) if categories else Value("string")
    features = Features({"image": Image(), "objects": {"bbox": List(List(Value("float32"))), "category": List(names)}})
    images = [PILImage.new("RGB", (20, 10), (9 * place, 0, 0)) for place in range(len(objects))]
    return Dataset.from_list([{"image": i, "objects": o} for i, o in zip(images, objects)], features=features)


GOOD = {"bbox": [[1, 1, 5, 5]], "category": ["cat"]}


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([GOOD, {"bbox": [[15, 1, 8, 5]], "category": ["cat"]}], r"row 1\): the box .* leaves its picture of 20 x 10"),
        ([GOOD, {"bbox": [[3, 3, 0, 4]], "category": ["cat"]}], r"row 1\): the box .* has no area"),
        ([{"bbox": [[1, 1, 5, 5]], "category": []}, GOOD], r"row 0\): 1 boxes and 0 categories"),
        ([{"bbox": [], "category": []}], "no row has an object: the annotations are empty"),
        ([{"bbox": [[1, 1, 5]], "category": ["cat"]}], r"a box is \[x, y, width, height\]"),
    ],
)
def test_what_is_wrong_with_boxes_is_said_before_training(objects, message, tmp_path, monkeypatch):
    rows(objects).save_to_disk(tmp_path / "data")
    monkeypatch.setattr("transformers.Trainer.train", lambda *args, **kwargs: pytest.fail("training began"))
    with pytest.raises(ValueError, match=message):
        run_adaptation(detection(tmp_path / "run", dataset=str(tmp_path / "data"), task="object-detection"))


def test_a_list_of_objects_is_read_as_lists_of_their_parts():
    objects = [[{"bbox": [1, 1, 5, 5], "category": "cat"}, {"bbox": [2, 2, 4, 4], "category": "dog"}], [], None]
    images = [PILImage.new("RGB", (20, 10))] * 3
    data = Dataset.from_dict({"image": images, "objects": objects}).cast_column("image", Image())
    made = arranged_objects(data, "training")
    assert object_column(data) == "objects" and category_names(made) == ("cat", "dog")
    assert made["labels"][:] == [{"bbox": [[1, 1, 5, 5], [2, 2, 4, 4]], "category": ["cat", "dog"]}, ANY, ANY]
    assert not any((cell or {}).get("bbox") for cell in made["labels"][1:])
    single = Dataset.from_dict({"image": images, "objects": [objects[0][0]] * 3}).cast_column("image", Image())
    with pytest.raises(ValueError, match="column `objects` of the training rows holds one box a row"):
        arranged_objects(single, "training")


def test_a_category_that_one_domain_lacks_is_named(tmp_path):
    objects = [{"bbox": [[1, 1, 5, 5]], "category": [0]}] * 4
    rows(objects, ["cat", "dog"]).save_to_disk(tmp_path / "source")
    rows(objects, ["cat"]).save_to_disk(tmp_path / "target")
    places = {"dataset": str(tmp_path / "source"), "target_dataset": str(tmp_path / "target")}
    with pytest.raises(ValueError, match="the target lacks classes of the source: dog"):
        run_adaptation(detection(tmp_path / "run", **places))


def test_an_annotation_file_without_annotations_is_refused(tmp_path):
    parts = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []}
    (tmp_path / "empty.json").write_text(json.dumps(parts))
    with pytest.raises(ValueError, match="1 images and 0 annotations: there is nothing to learn from"):
        load(str(tmp_path / "empty.json"))
    parts["annotations"] = [{"image_id": 2, "bbox": [0, 0, 1, 1], "category_id": 1}]
    (tmp_path / "empty.json").write_text(json.dumps(parts))
    with pytest.raises(ValueError, match="annotation 0 is of the image 2"):
        load(str(tmp_path / "empty.json"))
    named = [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}]
    for changes, message in (
        ({"annotations": [{"image_id": 1, "category_id": 1}]}, "item 0 of `annotations` has no `bbox`"),
        ({"images": [{"file_name": "a.png"}]}, "item 0 of `images` has no `id`"),
        ({"categories": [{"id": 1}]}, "item 0 of `categories` has no `name`"),
        ({"categories": named}, r"several categories of the names \['cat'\]"),
    ):
        (tmp_path / "empty.json").write_text(json.dumps({**parts, **changes}))
        with pytest.raises(ValueError, match=message):
            load(str(tmp_path / "empty.json"))


def test_right_boxes_score_one():
    scores = np.array([[[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]]])
    boxes = np.array([[[0.3, 0.3, 0.2, 0.2], [0.6, 0.6, 0.4, 0.4], [0.5, 0.5, 1, 1]]])
    outputs = np.concatenate([scores, boxes], axis=-1)
    labels = np.array([[[0, 0.3, 0.3, 0.2, 0.2], [1, 0.6, 0.6, 0.4, 0.4], [-1, 0, 0, 0, 0]]])
    unknown = np.full_like(labels, -100)
    prediction = EvalPrediction(np.repeat(outputs, 2, axis=0), np.concatenate([labels, unknown]))
    assert DetectionMetrics(2)(prediction) == {"map": 1.0, "map_50": 1.0, "map_75": 1.0}
    (several,) = scored_boxes(outputs[..., [0, 1, 3, 4, 5, 6]], 2)  # without a score for no object
    assert len(several.scores) == 6 and several.classes[:2].tolist() == [0, 1]


def test_processors_that_keep_the_shape_are_made_to_give_one_size():
    processor = of_one_size(YolosImageProcessorPil(size={"shortest_edge": 40, "longest_edge": 60}))
    pictures = [PILImage.new("RGB", size) for size in ((50, 20), (20, 30))]
    assert processor(pictures, return_tensors="pt")["pixel_values"].shape == (2, 3, 40, 40)


def test_frozen_norms_of_random_weights_are_told(caplog):
    backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4}
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 4}
    settings = {"model_type": "detr", "backbone_config": {**backbone, "out_features": ["stage4"]}, **sizes, **heads}
    load_model(ModelArguments(model=None, architecture=settings, task="object-detection"))
    assert "batch norms of the detr's backbone, whose weights are random, are frozen" in caplog.text
    task = task_named("object-detection")
    trained = {"freeze_backbone_batch_norms": False}
    for kind, told in (("rt_detr", trained), ("yolos", {}), ("no such kind", {})):
        assert task.sizes({"model_type": kind}, DataArguments("any"), [], None) == told
    named = {"model_type": "rt_detr", "backbone_config": "efficientnet-lite0"}
    assert task.sizes(named, DataArguments("any"), [], None) == {}


def test_held_out_rows_have_the_labels_of_their_file(coco):
    task = task_named("object-detection")
    whole = load_data(DataArguments(dataset=str(coco / "train.json")), task=task).train
    parts = load_data(DataArguments(dataset=str(coco / "train.json"), test_rows=5), task=task)
    assert len(parts.test) == 5
    for place, labels in zip(parts.held_out, parts.test["labels"], strict=True):
        assert labels == whole[place]["labels"]


@pytest.mark.parametrize(
    ("orientation", "told", "message"),
    [
        (1, (64, 48), r"`0.jpg` has 64 x 48 pixels, and it has 32 x 24: boxes"),
        (6, (32, 24), r"`0.jpg` has 32 x 24 pixels, and it has 24 x 32; it is stored so and shown turned"),
        (6, (24, 32), None),
    ],
    ids=["resized", "turned", "right"],
)
def test_boxes_are_in_pixels_of_the_picture_that_is_shown(orientation, told, message, tmp_path):
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    PILImage.new("RGB", (32, 24)).save(tmp_path / "0.jpg", exif=exif)
    parts = {
        "images": [{"id": 0, "file_name": "0.jpg", "width": told[0], "height": told[1]}],
        "annotations": [{"image_id": 0, "bbox": [1, 1, 5, 5], "category_id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(parts))
    if message is None:
        assert len(load(str(tmp_path / "boxes.json"))) == 1
    else:
        with pytest.raises(ValueError, match=message):
            load(str(tmp_path / "boxes.json"))


def test_key_points_of_a_coco_file_are_told_to_be_left_out(coco, tmp_path, caplog):
    parts = json.loads((coco / "train.json").read_text())
    for one in parts["annotations"]:
        one["keypoints"] = [1, 1, 2]
    (coco / "points.json").write_text(json.dumps(parts))
    load(str(coco / "points.json"))
    assert "its key points are not: give these as a column `keypoints`" in caplog.text


def test_a_detector_is_ranked_by_its_whole_body(tmp_path):
    backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8], "depths": [1, 1, 1]}
    backbone |= {"layer_type": "basic", "out_features": ["stage2", "stage3"]}
    sizes = {"encoder_hidden_dim": 16, "encoder_ffn_dim": 16, "encoder_attention_heads": 2, "d_model": 16}
    sizes |= {"decoder_ffn_dim": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "num_queries": 4}
    sizes |= {"encoder_in_channels": [8, 8], "decoder_in_channels": [16, 16], "feat_strides": [8, 16]}
    sizes |= {"num_feature_levels": 2, "encode_proj_layers": [1]}
    config = RTDetrConfig(backbone_config=ResNetConfig(**backbone), **sizes)
    model = frozen(AutoModel.from_config(config), with_head=False)
    assert type(model) is RTDetrModel
    features = FeatureExtractor(model)({"pixel_values": torch.rand(2, 3, 64, 64)})
    assert [tuple(one.shape) for one in features.values()] == [(2, 16)]


def test_pictures_without_any_object_are_refused(trained, coco, tmp_path):
    parts = json.loads((coco / "test.json").read_text())
    parts["annotations"] = [{**one, "iscrowd": 1} for one in parts["annotations"]]
    (coco / "crowds.json").write_text(json.dumps(parts))
    with pytest.raises(ValueError, match="no picture of the training rows has an object"):
        run_adaptation(detection(tmp_path / "run", dataset=str(coco / "crowds.json")))
    with pytest.raises(ValueError, match="nothing of the 8 evaluation rows can be measured by .'map'"):
        run_evaluation(str(trained.folder), str(coco / "crowds.json"))
