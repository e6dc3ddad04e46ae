"""Key points from rows to a saved folder, and in every command."""

import csv
import json

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from transformers import (
    AutoModelForImageClassification,
    AutoModelForKeypointDetection,
    ConvNextImageProcessorPil,
    VitPoseConfig,
)

from hf_transfer.data.bundled import load_splits
from hf_transfer.data.emoji_scenes import POINTS
from hf_transfer.data.keypoints import points_of
from hf_transfer.evaluation.keypoints import keypoint_metrics, point_figures
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.data import load_data
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.models import new_config
from hf_transfer.runs.predict import run_prediction
from hf_transfer.tasks import task_named
from hf_transfer.tasks.arguments import DataArguments
from hf_transfer.training.transfer_model import TransferModel
from tests.drawings import CATEGORIES, scene_options
from tests.marks import slow
from tests.tasks.test_image_segmentation import FLOWFORMER, experiment

RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [16, 24], "depths": [1, 1]}
RESNET["layer_type"] = "basic"
MODEL = {"model_type": "heatmap-keypoints", "image_size": 32, "hidden_size": 16, "backbone_config": RESNET}
NAMES = dict(enumerate(POINTS))


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    return tmp_path_factory.mktemp("drawings")


@pytest.fixture(scope="module")
def rows(drawings, tmp_path_factory):
    place = tmp_path_factory.mktemp("rows") / "data"
    options = scene_options(drawings, categories=list(CATEGORIES[:1]), rows=24)
    load_splits("emoji_points", options=options).save_to_disk(place)
    return place


def points(output, **changes):
    return experiment(output, **{"architecture": json.dumps(MODEL), **changes})


@pytest.fixture(scope="module")
def trained(rows, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "run"
    changes = {"max_steps": 40, "learning_rate": 1e-2, "per_device_train_batch_size": 8, "id2label": NAMES}
    return run_adaptation(points(output, dataset=str(rows), **changes))


def test_from_rows_to_a_saved_model(trained):
    assert set(trained) >= {"pck_05", "pck_10", "mean_error", "loss"}
    assert trained["mean_error"] < 0.25  # the middle of the picture is .26 away on average
    model = AutoModelForKeypointDetection.from_pretrained(trained.folder).eval()
    assert list(model.config.id2label.values()) == list(POINTS)
    with torch.no_grad():
        outputs = model(torch.randn(2, 3, 32, 32), labels=torch.rand(2, 5, 2))
    assert outputs.heatmaps.shape[:2] == (2, 5) and torch.isfinite(outputs.loss)
    card = (trained.folder / "README.md").read_text()
    assert "pipeline_tag: keypoint-detection" in card and "pck_05" in card and "hf_transfer" in card


def test_any_image_model_is_a_backbone(rows, tmp_path, caplog):
    """Its own image processor cuts pictures, which points could not follow."""
    torch.manual_seed(0)
    folder, run = tmp_path / "resnet", tmp_path / "run"
    AutoModelForImageClassification.from_config(new_config(dict(RESNET))).save_pretrained(folder)
    ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.875).save_pretrained(folder)
    given = {"model": str(folder), "architecture": None, "dataset": str(rows), "max_steps": 2}
    with pytest.raises(ValueError, match="labelled for keypoint-detection .* give `task: keypoint-detection`"):
        run_adaptation(points(run, **given))
    found = run_adaptation(points(run, **given, task="keypoint-detection"))
    assert "it is the backbone of a new heatmap-keypoints" in caplog.text
    assert run_evaluation(str(found.folder), str(rows))["loss"] == pytest.approx(found["loss"], abs=1e-5)
    ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.875).save_pretrained(found.folder)
    with pytest.raises(ValueError, match="cuts the middle out of pictures .* labels of their parts would not fit"):
        run_evaluation(str(found.folder), str(rows))


def test_evaluation_gives_the_same_figures_as_the_end_of_the_run(trained, rows):
    found = run_evaluation(str(trained.folder), str(rows))
    assert all(found[name] == pytest.approx(trained[name], abs=1e-5) for name in ("pck_05", "mean_error", "loss"))


def test_predictions_are_places_in_pixels(trained, rows, tmp_path):
    output = tmp_path / "answers.csv"
    run_prediction(str(trained.folder), str(rows), output=output)
    table = list(csv.DictReader(output.open()))
    assert len(table) == 8 * 5 and [line["prediction"] for line in table[:5]] == list(POINTS)
    assert all(0 <= float(line["x"]) <= 32 and 0 <= float(line["probability"]) <= 1 for line in table)


@pytest.mark.parametrize(
    "objectives",
    [{"regda": {"hidden_size": 4}}, slow({"dann": {"hidden_size": 8}, "dd": {}})],
)
def test_points_of_two_domains_are_adapted(objectives, drawings, tmp_path):
    options = {name: scene_options(drawings, name) for name in ("google", "twitter")}
    run = points(
        tmp_path / "run",
        dataset="emoji_points",
        dataset_options=options["google"],
        target_dataset="emoji_points",
        target_options=options["twitter"],
        objectives=objectives,
        validation_rows=4,
        max_steps=2,
    )
    result = run_adaptation(run)
    results = json.loads((result.folder / "results.json").read_text())
    assert set(results["validators"]) >= {"source_risk"} and 0 <= result["pck_10"] <= 1


def test_vit_pose_of_transformers_is_trained_too():
    backbone = {"model_type": "vitpose_backbone", "image_size": [32, 32], "patch_size": [8, 8], "hidden_size": 16}
    backbone |= {"num_hidden_layers": 1, "num_attention_heads": 2, "out_indices": [1]}
    config = VitPoseConfig(backbone_config=backbone, use_simple_decoder=False, num_labels=3)
    model = AutoModelForKeypointDetection.from_config(config)
    transfer = TransferModel(model).train()
    labels = torch.rand(2, 3, 2)
    loss = transfer(pixel_values=torch.randn(2, 3, 32, 32), labels=labels).loss
    loss.backward()
    assert torch.isfinite(loss) and model.head.conv.weight.grad.abs().sum() > 0
    transfer.eval()
    assert transfer(pixel_values=torch.randn(2, 3, 32, 32), labels=labels).logits.shape == (2, 3, 3)


def picture_rows(cells) -> Dataset:
    images = [PILImage.new("RGB", (20, 10), (9 * place, 0, 0)) for place in range(len(cells))]
    features = Features({"image": Image(), "keypoints": List(List(Value("float32")))})
    return Dataset.from_dict({"image": images, "keypoints": cells}, features=features)


@pytest.mark.parametrize(
    ("cells", "changes", "message"),
    [
        ([[[1, 1, 1]], [[1, 1, 1], [2, 2, 1]]], {}, "row 1 of the training .*has 2 key points and the first row 1"),
        (
            [[[1, 1, 1]], [[25, 1, 1]]],
            {},
            r"row 1\): key point 0 at \[25.0, 1.0\] lies outside its picture",
        ),
        ([[[1, 1, 1]]], {"id2label": {0: "a", 1: "b"}}, "names 2 key points, and every row .* has 1"),
        ([[[1, 1, 1, 1]]], {}, "key points should be"),
        ([[[1, 1], [-1, -1]]], {}, r"key point 1 at \[-1.0, -1.0\] lies outside"),
    ],
)
def test_what_is_wrong_with_points_is_said_before_training(cells, changes, message, tmp_path, monkeypatch):
    picture_rows(cells).save_to_disk(tmp_path / "data")
    monkeypatch.setattr("transformers.Trainer.train", lambda *args, **kwargs: pytest.fail("training began"))
    changes = {"dataset": str(tmp_path / "data"), "task": "keypoint-detection", **changes}
    with pytest.raises(ValueError, match=message):
        run_adaptation(points(tmp_path / "run", **changes))


def test_pairs_in_one_list_are_no_flags():
    assert points_of([1, 2, 2, 4, 5, 0], "row 0").tolist() == [[1, 2, 2], [4, 5, 0]]
    with pytest.raises(ValueError, match=r"row 0: numbers in one list are \[x, y, visible"):
        points_of([1, 2, 3, 4, 5, 6], "row 0")


def test_points_near_enough_are_right():
    labels = np.array([[[0.5, 0.5], [0.2, 0.2], [-100, -100]]])
    predictions = np.array([[[0.54, 0.5, 0.9], [0.2, 0.28, 0.9], [0.0, 0.0, 0.9]]])
    found = keypoint_metrics(predictions, labels)
    assert found == {"pck_05": 0.5, "pck_10": 1.0, "mean_error": pytest.approx(0.06)}
    assert keypoint_metrics(predictions, np.full((1, 3, 2), -100.0)) == {}
    figures = point_figures(predictions, labels, ["nose", "ear", "tail"])
    assert list(figures) == ["nose", "ear"], "the third point is not seen"
    assert figures["ear"] == {"pck_05": 0.0, "pck_10": 1.0, "mean_error": pytest.approx(0.08), "seen": 1}


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="`deconvolutions` should be at least 0"):
        new_config({**MODEL, "sigma": 0.0})


def test_heat_maps_on_the_pyramid_of_flowformer():
    config = new_config({**MODEL, "backbone_config": FLOWFORMER, "num_labels": 3})
    model = AutoModelForKeypointDetection.from_config(config)
    outputs = model(torch.randn(2, 3, 32, 32), labels=torch.rand(2, 3, 2))
    outputs.loss.backward()
    assert outputs.heatmaps.shape[:2] == (2, 3) and model.backbone.flowformer is not None


def test_held_out_rows_have_the_labels_of_their_file(rows):
    task = task_named("keypoint-detection")
    whole = load_data(DataArguments(dataset=str(rows)), task=task).train
    parts = load_data(DataArguments(dataset=str(rows), test_rows=5), task=task)
    assert len(parts.test) == 5
    for place, labels in zip(parts.held_out, parts.test["labels"], strict=True):
        assert labels == whole[place]["labels"]


def test_points_that_are_never_seen_are_told_or_refused(trained, tmp_path, caplog):
    def saved(*flags):
        cells = [[[1.0, 2.0, flag] for flag in flags]] * 4
        features = Features({"image": Image(), "keypoints": List(List(Value("float32")))})
        pictures = [PILImage.new("RGB", (8, 8))] * 4
        rows = Dataset.from_dict({"image": pictures, "keypoints": cells}, features=features)
        rows.save_to_disk(tmp_path / "-".join(map(str, flags)))
        return str(tmp_path / "-".join(map(str, flags)))

    arguments = {"task": "keypoint-detection", "max_steps": 1}
    with pytest.raises(ValueError, match="no key point of the training rows is seen"):
        run_adaptation(points(tmp_path / "run", dataset=saved(0, 0, 0, 0, 0), **arguments))
    with pytest.raises(ValueError, match="nothing of the 4 evaluation rows can be measured by .'pck_05'"):
        run_evaluation(str(trained.folder), saved(0, 0, 0, 0, 0))
    run_adaptation(points(tmp_path / "run", dataset=saved(2, 0, 1, 2, 2), **arguments))
    assert "the key points ['1'] are seen in none of the training rows" in caplog.text
