"""Pictures with masks, boxes or key points become rows that models are ranked on."""

import numpy as np
import pytest
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from hf_transfer.data.bundled import load
from hf_transfer.modeling.scene_labels import scene_column, with_picture_labels
from hf_transfer.runs.rank import run_ranking
from tests.drawings import scene_options
from tests.ranking.conftest import save_vit


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    return tmp_path_factory.mktemp("drawings")


def test_masks_and_boxes_tell_what_a_picture_shows(drawings):
    masks, boxes = (load(name, options=scene_options(drawings)) for name in ("emoji_masks", "emoji_boxes"))
    assert scene_column(masks) == "mask" and scene_column(boxes) == "objects"
    by_mask, by_box = with_picture_labels(masks, "mask"), with_picture_labels(boxes, "objects")
    assert by_mask.column_names == ["image", "mask"] and by_box.column_names == ["image", "objects"]
    # the background, which every picture shows, is left out; scenes are the same
    assert np.asarray(by_mask["mask"][:]).tolist() == np.asarray(by_box["objects"][:]).tolist()
    first = boxes[0]["objects"]["category"]
    assert by_box[0]["objects"] == [float(kind in first) for kind in range(2)]


def test_key_points_are_shares_of_the_sides(drawings):
    rows = load("emoji_points", options=scene_options(drawings))
    ready = with_picture_labels(rows, scene_column(rows))
    seen = [place for place, points in enumerate(rows["keypoints"]) if all(point[2] for point in points)]
    assert len(ready) == len(seen) and ready.column_names == ["image", "keypoints"]
    point = np.asarray(rows[seen[0]]["keypoints"])[:, :2] / 32
    assert ready[0]["keypoints"] == pytest.approx(point.flatten().tolist(), abs=1e-6)


def test_several_labels_of_a_row_are_no_key_points():
    picture = PILImage.new("RGB", (8, 8))
    features = Features({"image": Image(), "labels": List(Value("int64"))})
    assert scene_column(Dataset.from_dict({"image": [picture], "labels": [[0, 1]]}, features=features)) is None


def test_what_tells_no_picture_from_another_is_refused():
    picture, mask = PILImage.new("RGB", (4, 4)), PILImage.fromarray(np.array([[0, 1]] * 4, np.uint8).repeat(2, axis=1))
    features = Features({"image": Image(), "mask": Image()})
    rows = Dataset.from_dict({"image": [picture] * 2, "mask": [mask] * 2}, features=features)
    with pytest.raises(ValueError, match="every picture shows the same"):
        with_picture_labels(rows, "mask")


@pytest.mark.parametrize("name", ["emoji_masks", "emoji_boxes", "emoji_points"])
def test_models_are_ranked_on_them(name, drawings, tmp_path):
    for seed in range(2):
        save_vit(tmp_path / f"vit{seed}", seed)
    load(name, options=scene_options(drawings, size=32)).save_to_disk(tmp_path / "rows")
    folders = [str(tmp_path / f"vit{seed}") for seed in range(2)]
    ranking = run_ranking(folders, str(tmp_path / "rows"), score="logme", progress=False)
    assert len(ranking.scored) == 2 and all(np.isfinite(row.score) for row in ranking.scored)
