"""Average precision: known cases, and the figures of COCO's own evaluation."""

import contextlib
import io

import numpy as np
import pytest

from hf_transfer.evaluation.detection import Boxes, class_figures, corners_of, mean_average_precision, pairwise_iou


def boxes(corners, classes, scores=None) -> Boxes:
    scores = None if scores is None else np.array(scores, float)
    return Boxes(np.array(corners, float).reshape(-1, 4), np.array(classes, int), scores)


def test_right_boxes_score_one_and_a_wrong_class_nothing():
    true = [boxes([[0, 0, 10, 10]], [1]), boxes([], [])]
    right = [boxes([[0, 0, 10, 10]], [1], [0.9]), boxes([], [], [])]
    assert mean_average_precision(right, true) == {"map": 1.0, "map_50": 1.0, "map_75": 1.0}
    wrong = [boxes([[0, 0, 10, 10]], [0], [0.9]), boxes([], [], [])]
    assert mean_average_precision(wrong, true)["map"] == 0.0
    assert mean_average_precision(right[1:], true[1:]) == {}


def test_every_class_with_a_true_box_has_its_precisions():
    true = [boxes([[0, 0, 10, 10], [20, 20, 30, 30]], [2, 0]), boxes([[0, 0, 10, 10]], [2])]
    found = [boxes([[0, 0, 10, 10], [20, 20, 30, 26]], [2, 0], [0.9, 0.5]), boxes([[0, 0, 9, 9]], [1], [0.4])]
    figures = class_figures(found, true, ["a", "b", "c"])
    assert list(figures) == ["a", "c"] and [one["boxes"] for one in figures.values()] == [1, 2]
    assert figures["a"] == {"ap": pytest.approx(0.3), "ap_50": 1.0, "ap_75": 0.0, "boxes": 1}
    mean = mean_average_precision(found, true)
    assert np.mean([one["ap"] for one in figures.values()]) == pytest.approx(mean["map"])
    assert class_figures(found, [boxes([], [])] * 2, ["a", "b", "c"]) == {}


def test_half_an_overlap_counts_at_small_thresholds_alone():
    true = [boxes([[0, 0, 10, 10]], [0])]
    found = mean_average_precision([boxes([[0, 0, 10, 6]], [0], [0.5])], true)
    assert found["map_50"] == 1.0 and found["map_75"] == 0.0 and found["map"] == pytest.approx(0.3)  # .5, .55, .6


def test_a_wrong_box_with_a_better_score_halves_the_precision():
    true = [boxes([[0, 0, 10, 10]], [0])]
    found = mean_average_precision([boxes([[50, 50, 60, 60], [0, 0, 10, 10]], [0, 0], [0.9, 0.8])], true)
    assert found["map_50"] == pytest.approx(0.5)
    # a second box on the same object is wrong, and does no harm behind the right one
    found = mean_average_precision([boxes([[0, 0, 10, 10], [0, 0, 10, 9]], [0, 0], [0.9, 0.8])], true)
    assert found["map_50"] == 1.0


def test_iou_and_corners():
    first = corners_of(np.array([[0.5, 0.5, 1.0, 1.0]]))
    assert first.tolist() == [[0.0, 0.0, 1.0, 1.0]]
    assert pairwise_iou(first, np.array([[0.5, 0.0, 1.5, 1.0], [2.0, 2.0, 3.0, 3.0]])).tolist() == [[1 / 3, 0.0]]


def test_it_gives_what_the_evaluation_of_coco_gives():
    pycocotools = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    from pycocotools.cocoeval import COCOeval

    generator = np.random.default_rng(0)
    truths, answers, annotations, results = [], [], [], []
    for picture in range(12):
        count = int(generator.integers(0, 6))
        corner, size = generator.uniform(0, 60, (count, 2)), generator.uniform(5, 40, (count, 2))
        kinds = generator.integers(0, 3, count)
        truths.append(boxes(np.concatenate([corner, corner + size], axis=1), kinds))
        noise = generator.normal(0, 4, (count, 4))
        more = np.concatenate([generator.uniform(0, 50, (3, 2)), generator.uniform(51, 90, (3, 2))], axis=1)
        found = np.concatenate([truths[-1].corners + noise, more])
        guessed = np.concatenate([np.where(generator.random(count) < 0.8, kinds, 0), generator.integers(0, 3, 3)])
        answers.append(boxes(found, guessed, generator.random(len(found))))
        for one, kind in zip(truths[-1].corners, kinds):
            box = [*one[:2], *(one[2:] - one[:2])]
            area = float(box[2] * box[3])
            annotations.append({"id": len(annotations) + 1, "image_id": picture, "category_id": int(kind)})
            annotations[-1] |= {"bbox": box, "area": area, "iscrowd": 0}
        for one, kind, score in zip(found, guessed, answers[-1].scores):
            box = [*one[:2], *(one[2:] - one[:2])]
            results.append({"image_id": picture, "category_id": int(kind), "bbox": box, "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = pycocotools.COCO()
        coco.dataset = {"images": [{"id": n} for n in range(12)], "annotations": annotations}
        coco.dataset["categories"] = [{"id": n} for n in range(3)]
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ours = mean_average_precision(answers, truths)
    assert list(ours.values()) == pytest.approx(evaluation.stats[:3].tolist(), abs=1e-9)
    assert 0.05 < ours["map"] < ours["map_50"] < 0.95
