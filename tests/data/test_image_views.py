import pytest
import torch
from PIL import Image, ImageFilter

from hf_transfer.data.image_views import PRESETS, ImageViews, gaussian_blur, image_views
from hf_transfer.data.images import image_processor
from hf_transfer.data.views import ViewCollator, make_augmentation
from hf_transfer.data.visits import VISIT_COLUMN, Visit

STILL = {"crop": 1.0, "flip": False, "jitter": 0.0, "grey": 0.0, "blur": 0.0, "mean": 0.0, "std": 1.0}


def generators(count, seed=0):
    return [torch.Generator().manual_seed(seed + place) for place in range(count)]


def pictures(count=6, channels=3, side=16):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))


def first(images, seed=0, **keywords):
    made = ImageViews(**{**STILL, **keywords})
    return made.first_view({"pixel_values": images}, generators(len(images), seed))["pixel_values"]


def collated(rows):
    return {"pixel_values": torch.stack([row["pixel_values"] for row in rows])}


def test_both_views_are_random_by_seed_epoch_and_row_and_nothing_else():
    images = pictures()

    def views(rows, epoch, seed=0):
        collator = ViewCollator(collated, ImageViews(), "first_view", "second_view", seed)
        visits = [{"pixel_values": images[name], VISIT_COLUMN: Visit(name, epoch, 0)} for name in rows]
        batch = collator(visits)
        return torch.stack([batch["pixel_values"], batch["view_pixel_values"]], dim=1)

    whole = views(range(6), epoch=0)
    torch.rand(3)
    assert torch.equal(views(range(2, 4), epoch=0), whole[2:4])
    distinct = [whole, views(range(6), epoch=1), views(range(6), epoch=0, seed=1), images.unsqueeze(1)]
    assert len(torch.cat([one.flatten(0, 1).flatten(1) for one in distinct]).unique(dim=0)) == 6 * 7


def test_a_view_without_changes_is_the_image():
    images = pictures()
    torch.testing.assert_close(first(images), images)
    torch.testing.assert_close(first(images, mean=0.3, std=(0.1, 0.2, 0.4)), images)


def test_half_of_the_views_are_mirrored():
    images = pictures(200, side=4)
    seen = first(images, flip=True)
    mirrored = (seen - images.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-5
    same = (seen - images).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert (mirrored | same).all() and 70 < mirrored.sum() < 130


def test_a_view_shows_a_part_of_the_area():
    """Of an image whose pixels are their own places, the range seen says how large the part is and where."""
    places = torch.linspace(0, 1, 64)
    image = torch.stack([places.expand(64, 64), places[:, None].expand(64, 64)])
    seen = first(image.expand(400, -1, -1, -1), crop=0.25)
    low, high = seen.amin(dim=(2, 3)), seen.amax(dim=(2, 3))
    width, height = (high - low).unbind(dim=1)
    area, aspect = width * height, width / height
    assert 0.2 < area.min() < 0.35 and area.max() > 0.8 and 0.5 < area.mean() < 0.65
    assert aspect.min() > 0.7 and aspect.max() < 1.43 and aspect.std() > 0.1
    assert (low.amin(dim=0) < 0.05).all() and (high.amax(dim=0) > 0.95).all() and low.std() > 0.1


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96), (96, 32)])
def test_a_part_is_about_as_wide_as_high_whatever_the_form_of_the_image(height, width):
    across, down = torch.arange(width).float(), torch.arange(height).float()
    image = torch.stack([across.expand(height, width), down[:, None].expand(height, width)])
    seen = first(image.expand(200, -1, -1, -1), crop=0.1)
    assert seen.shape == (200, 2, height, width)
    extent = seen.amax(dim=(2, 3)) - seen.amin(dim=(2, 3)) + 1
    aspect = extent[:, 0] / extent[:, 1]
    assert aspect.min() > 0.68 and aspect.max() < 1.47 and aspect.std() > 0.1


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_the_blur_is_a_gaussian(sigma):
    images = pictures(2, side=32)
    images[0] = (images[0] * 255).round() / 255
    blurred = gaussian_blur(images, torch.tensor([sigma, 1e-3]))
    torch.testing.assert_close(blurred[1], images[1])
    pillow = Image.fromarray((images[0, 0] * 255).byte().numpy()).filter(ImageFilter.GaussianBlur(sigma))
    expected = torch.frombuffer(bytearray(pillow.tobytes()), dtype=torch.uint8).reshape(32, 32) / 255
    assert (blurred[0, 0] - expected).abs()[6:-6, 6:-6].mean() < 0.02  # Pillow's is made of boxes


@pytest.mark.parametrize(("name", "share"), [("blur", 1.0), ("blur", 0.5), ("solarize", 1.0), ("solarize", 0.3)])
def test_shares_of_the_two_views(name, share):
    images = pictures(200, side=8)
    made = ImageViews(**{**STILL, name: (0.0, share)})
    one, two = (made._view({"pixel_values": images}, generators(200), number)["pixel_values"] for number in (0, 1))
    torch.testing.assert_close(one, images)
    changed = (two - images).abs().amax(dim=(1, 2, 3)) > 1e-4
    assert abs(changed.float().mean() - share) < 0.12
    if name == "solarize":
        torch.testing.assert_close(two[changed], torch.where(images >= 0.5, 1 - images, images)[changed])


def test_grey_and_jitter():
    images = pictures(100, side=4)
    grey = first(images, grey=1.0)
    assert (grey == grey[:, :1]).all()
    coloured = first(images, jitter=0.8)
    changed = (coloured - images).abs().amax(dim=(1, 2, 3)) > 1e-6
    assert 60 < changed.sum() < 95 and coloured.min() >= 0 and coloured.max() <= 1
    assert first(images[:, :1], jitter=0.8, grey=1.0).shape == (100, 1, 4, 4)


def test_the_presets_are_the_papers():
    made = {name: image_views(name) for name in PRESETS}
    assert made["moco_v2"] == ImageViews()
    two, three, sim = made["moco_v2"], made["moco_v3"], made["simclr"]
    assert (two.crop, two.jitter, two.grey, two.blur, two.hue) == (0.2, 0.8, 0.2, 0.5, 0.1)
    assert (three.saturation, three.blur, three.solarize) == (0.2, (1.0, 0.1), (0.0, 0.2))
    assert (sim.crop, sim.brightness, sim.saturation, sim.hue) == (0.08, 0.8, 0.8, 0.2)
    assert made["small"].blur == 0 and made["mae"].jitter == made["mae"].grey == made["mae"].blur == 0


def test_settings_name_a_preset_and_the_processor_its_normalisation():
    settings = {"views": "small", "flip": False, "crop": 0.5}
    made, strengths = make_augmentation(["pixel_values"], settings, image_processor(16, 3))
    assert made == ImageViews(blur=0.0, flip=False, crop=0.5, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert strengths == {"first": "first_view", "second": "second_view"}
    assert make_augmentation(["pixel_values"], {"views": "mae", "second": None})[1]["second"] is None


def test_an_objective_has_its_usual_views_unless_strengths_are_named():
    assert make_augmentation(["pixel_values"], None, None, "simclr")[0] == image_views("simclr")
    assert make_augmentation(["pixel_values"], {"flip": False}, None, "simclr")[0] == image_views("simclr", flip=False)
    made, strengths = make_augmentation(["pixel_values"], {"first": "weak", "shift": 0.1}, None, "simclr")
    assert strengths == {"first": "weak", "second": "strong"} and made.shift == 0.1
    assert make_augmentation(["past_values"], None, None, "simclr")[1] == {"first": "strong", "second": "strong"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": "dino"}, r"`views` should be one of \['mae', 'moco_v2'"),
        ({"views": "small", "shift": 0.1}, r"`augmentation` with `views` has no \['shift'\], accepted: .*'crop'"),
        ({"views": "small", "crop": 0}, r"`crop` should be in \(0, 1\], got 0"),
        ({"views": "small", "hue": 0.7}, r"`hue` should be in \[0, 0.5\], got 0.7"),
        ({"views": "small", "blur": [0.1, 2]}, r"`blur` should be a share in \[0, 1\], got \[0.1, 2\]"),
        ({"views": "small", "brightness": -1}, "`brightness` should be at least 0, got -1"),
        ({"zoom": 1}, r"accepted: .*'views'"),
    ],
)
def test_settings_that_make_no_views_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_augmentation(["pixel_values"], settings)


def test_a_strength_that_the_augmentation_has_not_is_refused():
    with pytest.raises(ValueError, match="`first` = 'weak' is nothing that ImageViews has"):
        ViewCollator(collated, ImageViews())
