import pytest
import torch

from hf_transfer.data.image_augmentation import OPERATIONS, ImageAugmentation, cut_out, recolour, shape_change, warp


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pixels(digits):
    return torch.as_tensor(digits[:8]["pixel_values"])


def strengths(**given: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([given.get(name, 0.0)]) for name in OPERATIONS}


def test_a_weak_augmentation_is_a_shift_by_whole_pixels(pixels):
    augmentation = ImageAugmentation(shift=2 / 14)
    padded = torch.nn.functional.pad(pixels, (2, 2, 2, 2), mode="replicate")
    shifts = set()
    for seed in range(6):
        moved = augmentation.weak({"pixel_values": pixels, "other": torch.ones(8)}, generator(seed))
        assert torch.equal(moved["other"], torch.ones(8))
        for image, whole in zip(moved["pixel_values"], padded):
            candidates = {
                (down, right): whole[:, 2 + down : 16 + down, 2 + right : 16 + right]
                for down in range(-2, 3)
                for right in range(-2, 3)
            }
            gaps = {shift: (image - candidate).abs().max().item() for shift, candidate in candidates.items()}
            shift = min(gaps, key=gaps.get)
            assert gaps[shift] < 1e-4
            shifts.add(shift)
    assert len(shifts) > 15


def test_half_of_the_images_are_mirrored_when_asked_for(pixels):
    images = pixels[:1].expand(400, -1, -1, -1)
    moved = ImageAugmentation(shift=0, flip=True).weak({"pixel_values": images}, generator())["pixel_values"]
    mirrored = torch.isclose(moved, images.flip(-1), atol=1e-4).flatten(1).all(dim=1)
    same = torch.isclose(moved, images, atol=1e-4).flatten(1).all(dim=1)
    assert (mirrored ^ same).all() and 150 < mirrored.sum() < 250


@pytest.mark.parametrize("strength", ["weak", "strong"])
def test_half_of_the_images_are_negatives_when_asked_for(pixels, strength):
    """Light for dark within each image's own range."""
    images = pixels[:1].expand(400, -1, -1, -1)
    low, high = images[0].min(), images[0].max()
    augmentation = ImageAugmentation(shift=0, operations=0, cutout=0, negative=True)
    made = getattr(augmentation, strength)({"pixel_values": images}, generator())["pixel_values"]
    turned = torch.isclose(made, low + high - images, atol=1e-4).flatten(1).all(dim=1)
    same = torch.isclose(made, images, atol=1e-4).flatten(1).all(dim=1)
    assert (turned ^ same).all() and 150 < turned.sum() < 250


def test_the_operations_against_their_formulas(pixels):
    image = pixels[:1]
    turned = warp(image, shape_change(strengths(rotate=torch.pi / 2 / torch.pi * 6)))  # 3 * 30 degrees
    torch.testing.assert_close(turned, image.rot90(1, dims=(2, 3)), atol=1e-4, rtol=0)
    mean, deviation = image.mean(), image.std(correction=0)
    torch.testing.assert_close(recolour(image, strengths(brightness=0.5)), image + 0.5 * deviation)
    torch.testing.assert_close(recolour(image, strengths(contrast=-0.5)), (image + mean) / 2)
    blurred = recolour(image, strengths(sharpness=-1.0))
    assert blurred[0, 0, 5, 5] == pytest.approx(image[0, 0, 4:7, 4:7].mean().item(), abs=1e-5)


def test_a_square_is_cut_out_at_the_mean(pixels):
    cut = cut_out(pixels, 0.5, generator())
    mean = pixels.mean(dim=(2, 3), keepdim=True)
    for before, after, grey in zip(pixels, cut, mean):
        changed = (after == grey).squeeze(0)
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        assert 4 <= len(rows) <= 7 and 4 <= len(columns) <= 7
        assert changed.sum() == len(rows) * len(columns), "one rectangle"
        assert torch.equal(after[:, ~changed], before[:, ~changed])


def test_a_strong_augmentation_changes_more_and_the_generator_decides(pixels):
    augmentation = ImageAugmentation()
    inputs = {"pixel_values": pixels}
    strong = augmentation.strong(inputs, generator(3))["pixel_values"]
    assert torch.equal(strong, augmentation.strong(inputs, generator(3))["pixel_values"])
    assert not torch.equal(strong, augmentation.strong(inputs, generator(4))["pixel_values"])
    assert strong.shape == pixels.shape and strong.isfinite().all()
    nothing = ImageAugmentation(shift=0, operations=0, cutout=0)
    torch.testing.assert_close(nothing.strong(inputs, generator())["pixel_values"], pixels, atol=1e-4, rtol=0)


@pytest.mark.parametrize("keywords", [{"shift": 1.0}, {"magnitude": -0.1}, {"cutout": 1}, {"operations": -1}])
def test_an_invalid_keyword_raises(keywords):
    with pytest.raises(ValueError, match=next(iter(keywords))):
        ImageAugmentation(**keywords)


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match=r"\[B, C, H, W\], got \[2, 3\]"):
        ImageAugmentation().weak({"pixel_values": torch.zeros(2, 3)}, generator())
