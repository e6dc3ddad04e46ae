"""Masks, boxes and key points say where things are in the pictures; the drawings are made here."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hf_transfer.data.bundled import load, load_splits
from hf_transfer.data.emoji_scenes import SceneSettings, box_of, placed
from tests.drawings import CATEGORIES, scene_options


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("drawings")


def test_masks_cover_the_drawings(folder):
    splits = load_splits("emoji_masks", options=scene_options(folder, background=0))
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 16, "test": 8}
    assert splits["train"].features["classes"].feature.names == ["background", *CATEGORIES]
    for row in splits["train"]:
        image, mask = np.asarray(row["image"]).astype(int), np.asarray(row["mask"])
        assert image.shape == (32, 32, 3) and mask.shape == (32, 32)
        assert row["classes"] == np.unique(mask).tolist() and mask.max() >= 1
        # the discs of this vendor are yellow, and the boxes red
        inside = image[mask == 1]
        if len(inside) > 40:
            assert np.median(inside[:, 1]) > 100 and np.median(inside[:, 2]) < 60
        inside = image[mask == 2]
        if len(inside) > 40:
            assert np.median(inside[:, 1]) < 60


def test_boxes_are_those_of_what_is_seen(folder):
    rows = load("emoji_boxes", options=scene_options(folder))
    masks = load("emoji_masks", options=scene_options(folder))
    for boxes, mask in zip(rows["objects"], masks["mask"]):
        mask = np.asarray(mask)
        assert len(boxes["bbox"]) == len(boxes["category"]) >= 1
        union = np.zeros(mask.shape, bool)
        for (x, y, width, height), kind in zip(boxes["bbox"], boxes["category"]):
            part = mask[int(y) : int(y + height), int(x) : int(x + width)]
            assert (part == kind + 1).any()
            union[int(y) : int(y + height), int(x) : int(x + width)] = True
        assert not (mask[~union] > 0).any()  # nothing lies outside all boxes


def test_points_turn_with_the_drawing():
    drawing = Image.new("RGBA", (40, 40), (0, 0, 255, 255))
    ImageDraw.Draw(drawing).rectangle((15, 0, 24, 8), fill=(255, 0, 0, 255))  # marks the top
    settings = SceneSettings(size=64, most=1, smallest=0.5, largest=0.5)
    generator = np.random.default_rng(0)
    for _ in range(5):
        alone, points = placed(drawing, settings, generator, turn=60)
        pixels = np.asarray(alone).astype(float)
        red = pixels[..., 0] * (pixels[..., 3] > 128) > 150
        marked = np.argwhere(red).mean(axis=0)[::-1]
        top, middle = np.array(points[0][:2]), np.array(points[4][:2])
        # the mark lies between the middle and the middle of the upper side, near the latter
        assert np.linalg.norm(marked - top) < 4.5 and np.linalg.norm(marked - middle) > 5
        assert points[0][2] == 1.0


def test_draws_are_repeatable_and_of_each_vendor_its_own(folder):
    first, again = (load("emoji_points", options=scene_options(folder)) for _ in range(2))
    other = load("emoji_points", options=scene_options(folder, seed=1))
    twitter = load("emoji_points", options=scene_options(folder, "twitter"))
    assert first["keypoints"][:] == again["keypoints"][:]
    assert first["keypoints"][:] != other["keypoints"][:] and first["keypoints"][:] != twitter["keypoints"][:]
    assert np.array_equal(np.asarray(first[0]["image"]), np.asarray(again[0]["image"]))
    assert len(first[0]["keypoints"]) == 5 and first.features["keypoints"].feature.feature.dtype == "float32"


def test_box_of_pixels():
    pixels = np.zeros((6, 8), bool)
    pixels[2:5, 3:7] = True
    assert box_of(pixels) == [3, 2, 4, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"categories": ["Cars"]},
            "`categories` should name some of .*Smileys & Emotion.*, got .*Cars",
        ),
        ({"rows": 0}, "`rows` and `test_rows` should be at least 1"),
        ({"size": 8}, "scenes need `size` >= 16"),
        ({"background": 7}, "`background` should be from 0 to 1, got 7"),
    ],
)
def test_wrong_options_are_refused(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        load("emoji_masks", options=scene_options(folder, **changes))
