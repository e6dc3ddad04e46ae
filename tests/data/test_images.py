import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage

from hf_transfer.data.bundled import optical_digits
from hf_transfer.data.images import image_processor, to_pixel_values, with_pixel_values


@pytest.fixture(scope="module")
def raw():
    return optical_digits().select(range(12))


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_scaled_and_put_channels_first(raw, channels):
    image = raw[0]["image"]
    pixels = to_pixel_values(image, 28, channels)
    expected = np.asarray(image).astype(np.float64) / 255 * 2 - 1
    assert pixels.dtype == np.float32 and pixels.shape == (channels, 28, 28)
    for channel in pixels:
        assert channel == pytest.approx(expected, abs=1e-6)


def test_colours_keep_their_channel():
    image = PILImage.new("RGB", (2, 2), (255, 0, 51))
    pixels = to_pixel_values(image, 2, 3, mean=0.0, std=1.0)
    assert pixels[:, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_is_read(raw, mode):
    assert to_pixel_values(raw[0]["image"].convert("RGB").convert(mode), 28, 3).shape == (3, 28, 28)


@pytest.mark.parametrize("channels, size", [(1, 28), (3, 14)])
def test_a_dataset_reads_as_tensors_row_by_row_and_in_batches(raw, channels, size):
    rows = with_pixel_values(raw, size, channels)
    assert rows.column_names == ["labels", "pixel_values"]
    batch = rows[3:7]
    assert batch["pixel_values"].shape == (4, channels, size, size)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["labels"].tolist() == raw["label"][3:7]
    assert torch.equal(rows[4]["pixel_values"], batch["pixel_values"][1])
    expected = torch.from_numpy(to_pixel_values(raw[4]["image"], size, channels))
    assert torch.equal(rows[4]["pixel_values"], expected)


@pytest.mark.parametrize("form", ["torch", "numpy"])
def test_a_format_set_before_does_no_harm(raw, form):
    assert torch.equal(
        with_pixel_values(raw.with_format(form), 14, 1)[2]["pixel_values"],
        with_pixel_values(raw, 14, 1)[2]["pixel_values"],
    )


def test_pixels_may_be_changed_without_changing_the_dataset(raw):
    rows = with_pixel_values(raw, 14, 1)
    rows[0]["pixel_values"].zero_()
    assert rows[0]["pixel_values"].abs().sum() > 0


def test_other_columns_stay_text_too(raw):
    rows = raw.add_column("writer", [f"writer {place}" for place in range(12)])
    ready = with_pixel_values(rows, 14, 1)
    assert ready[2]["writer"] == "writer 2"
    assert ready[2:4]["writer"] == ["writer 2", "writer 3"]


def test_the_image_column_may_have_another_name(raw):
    rows = raw.rename_column("image", "scan").rename_column("label", "labels")
    assert with_pixel_values(rows, 14, 1, image_column="scan").column_names == ["labels", "pixel_values"]


def test_a_missing_image_column_is_named(raw):
    with pytest.raises(ValueError, match=r"no image column `image`; it has \['label'\]"):
        with_pixel_values(raw.remove_columns("image"), 14, 1)


def test_an_image_without_label():
    features = Features({"image": Image(), "place": Value("int64")})
    rows = Dataset.from_dict({"image": [PILImage.new("L", (3, 5))], "place": [4]}, features=features)
    ready = with_pixel_values(rows, 4, 1)
    assert ready[0]["pixel_values"].shape == (1, 4, 4) and ready[0]["place"] == 4


@pytest.mark.parametrize("channels, size", [(1, 28), (1, 14), (3, 20)])
def test_the_processor_does_the_same(raw, channels, size):
    image = raw[5]["image"].convert("L" if channels == 1 else "RGB")
    processed = image_processor(size, channels)(image, return_tensors="np")["pixel_values"][0]
    assert processed == pytest.approx(to_pixel_values(image, size, channels), abs=0.02)
