"""What is labelled in a picture moves with it."""

import numpy as np
import pytest
import torch
from transformers import default_data_collator

from hf_transfer.data.scene_augmentation import SceneAugmentation, moved
from hf_transfer.data.views import ViewCollator, make_augmentation


def bright_square(rows: slice, columns: slice) -> torch.Tensor:
    image = torch.zeros(1, 3, 32, 32)
    image[:, :, rows, columns] = 1.0
    return image


def box_of(mask: torch.Tensor) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(dim=1)), np.flatnonzero(mask.any(dim=0))
    sides = [(one[0] / 32, (one[-1] + 1) / 32) for one in (columns, rows)]
    return [sum(sides[0]) / 2, sum(sides[1]) / 2, sides[0][1] - sides[0][0], sides[1][1] - sides[1][0]]


@pytest.mark.parametrize("seed", range(6))
def test_maps_boxes_and_points_stay_where_the_picture_shows_them(seed):
    image = bright_square(slice(10, 18), slice(12, 24))

    def changed(labels, flip=True):
        augmentation = SceneAugmentation(shift=0.2, zoom=0.3, flip=flip)
        inputs = {"pixel_values": image, "labels": labels}
        return augmentation.weak(inputs, torch.Generator().manual_seed(seed))

    result = changed((image[:, 0] > 0.5).long())
    shown = result["pixel_values"][0, 0] > 0.5
    assert (result["labels"][0].bool() == shown).float().mean() > 0.97 and shown.any()
    box = torch.tensor([[[1, 18 / 32, 14 / 32, 12 / 32, 8 / 32], [-1, 0, 0, 0, 0]]])
    found = changed(box)["labels"][0]
    assert found[0, 0] == 1 and found[0, 1:].tolist() == pytest.approx(box_of(shown), abs=1.1 / 32)
    assert found[1].tolist() == [-1, 0, 0, 0, 0]
    result = changed(torch.tensor([[[18 / 32, 14 / 32], [-100, -100]]]), flip=False)
    point, shown = result["labels"][0], result["pixel_values"][0, 0] > 0.5
    assert point[0].tolist() == pytest.approx(box_of(shown)[:2], abs=1.1 / 32) and point[1].tolist() == [-100, -100]


def test_what_leaves_the_picture_goes_and_what_is_unknown_stays():
    right = torch.eye(3).unsqueeze(0).clone()
    right[:, 0, 2] = 1.0  # shows what lies half a picture to the right
    boxes = torch.tensor([[[0, 0.25, 0.5, 0.4, 0.4], [1, 0.75, 0.5, 0.4, 0.4], [2, 0.5, 0.5, 0.4, 0.4]]])
    found = moved(boxes, right)[0]
    assert found[0].tolist() == [-1, 0, 0, 0, 0]
    assert found[1].tolist() == pytest.approx([1, 0.25, 0.5, 0.4, 0.4])
    assert found[2].tolist() == pytest.approx([2, 0.1, 0.5, 0.2, 0.4])  # half of it is left
    assert moved(torch.full((1, 2, 5), -100.0), right).eq(-100).all()
    assert moved(torch.tensor([[[0.25, 0.5], [0.75, 0.5]]]), right)[0].tolist() == [[-100, -100], [0.25, 0.5]]
    ignored = torch.full((1, 4, 4), 255)
    assert moved(ignored, right).eq(255).all()
    with pytest.raises(ValueError, match="should be maps, boxes or points"):
        moved(torch.zeros(1, 3, 4), right)


def test_a_collator_moves_labels_of_parts_alone():
    made, strengths = make_augmentation(["pixel_values"], {"shift": 0.3, "first": "strong"}, moves_labels=True)
    assert isinstance(made, SceneAugmentation)
    image = bright_square(slice(4, 12), slice(4, 12))[0]
    rows = [{"pixel_values": image, "labels": (image[0] > 0.5).long()} for _ in range(2)]
    batch = ViewCollator(default_data_collator, made, **{"second": None, **strengths})(rows)
    assert batch["labels"].shape == (2, 32, 32) and not torch.equal(batch["labels"][0], rows[0]["labels"])
    plain, _ = make_augmentation(["pixel_values"], {"shift": 0.3})
    batch = ViewCollator(default_data_collator, plain, second=None)(rows)
    assert torch.equal(batch["labels"][0], rows[0]["labels"])


def test_wrong_keywords_are_refused():
    with pytest.raises(ValueError, match="would make a left key point a right one"):
        inputs = {"pixel_values": torch.zeros(1, 3, 8, 8), "labels": torch.zeros(1, 4, 2)}
        SceneAugmentation(flip=True).weak(inputs, torch.Generator())
    with pytest.raises(ValueError, match="`zoom` should be in"):
        SceneAugmentation(zoom=1.0)
    with pytest.raises(ValueError, match=r"`augmentation` has no \['cutout'\]"):
        make_augmentation(["pixel_values"], {"cutout": 0.1}, moves_labels=True)
