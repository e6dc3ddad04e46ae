import io
import struct
import zlib

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value, load_dataset
from PIL import Image as PILImage

from hf_transfer.data.bundled import optical_digits
from hf_transfer.data.images import eight_bits, image_processor, read_image, to_pixel_values, with_pixel_values
from hf_transfer.data.prepare import prepare
from hf_transfer.modeling.inputs import choose_columns, make_batches
from tests import tiny


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


RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)
"""Every grey of 8 bits."""


def png_16(values: np.ndarray) -> bytes:
    """[H, W] or [H, W, C] of 16 bits as a PNG, which Pillow does not write in colour."""
    values = values.reshape(*values.shape[:2], -1)
    height, width, channels = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    kinds = {1: 0, 2: 4, 3: 2, 4: 6}

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 16, kinds[channels], 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_of_eight_bits_keeps_its_greys(mode, channels):
    grey = RAMP.astype(np.uint8) if mode != "1" else np.where(RAMP > 127, 255, 0).astype(np.uint8)
    colours = PILImage.fromarray(grey).convert("RGB")
    made = {"LAB": lambda: PILImage.new("LAB", (16, 16)), "P": lambda: PILImage.fromarray(grey).convert("P")}
    made["PA"] = lambda: colours.convert("LA").convert("PA")
    image = made.get(mode, lambda: colours.convert(mode))()
    read = np.asarray(eight_bits(image, channels)).astype(int)
    assert read.shape == ((16, 16) if channels == 1 else (16, 16, 3))
    if mode != "LAB":
        assert abs(read.reshape(16, 16, -1) - grey[..., None]).max() <= 1


@pytest.mark.parametrize("mode, order", [("I;16", "<u2"), ("I;16L", "<u2"), ("I;16B", ">u2"), ("I;16N", "=u2")])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_to_eight(mode, order, channels):
    image = PILImage.frombytes(mode, (16, 16), (RAMP * 257).astype(order).tobytes())
    assert np.array_equal(np.asarray(eight_bits(image, channels)).reshape(16, 16, -1)[..., 0], RAMP)


@pytest.mark.parametrize("colours", [1, 2, 3, 4])
def test_a_png_of_sixteen_bits_reads_as_one_of_eight(colours):
    deep = np.repeat(RAMP[..., None], colours, axis=2) * 257
    if colours in (2, 4):
        deep[..., -1] = 65535
    cell = {"bytes": png_16(deep), "path": None}
    assert np.array_equal(np.asarray(read_image(cell, 3, "row 0")), np.repeat(RAMP[..., None], 3, axis=2))


@pytest.mark.parametrize("mode, dtype", [("I", np.int32), ("F", np.float32)])
def test_pixels_without_a_white_are_refused(mode, dtype):
    rows = Dataset.from_dict({"image": [PILImage.fromarray(RAMP.astype(dtype))], "label": [0]})
    with pytest.raises(ValueError, match=rf"row 0 of column `image`: its pixels are .* \(mode {mode}\).*8 or 16 bits"):
        with_pixel_values(rows, 14, 3)


@pytest.mark.parametrize("mode, clear", [("RGBA", (0, 0, 0, 0)), ("LA", (0, 0)), ("PA", (0, 0)), ("RGBa", (0,) * 4)])
def test_what_is_transparent_is_white(mode, clear):
    assert eight_bits(PILImage.new(mode, (2, 2), clear), 3).getpixel((0, 0)) == (255, 255, 255)
    assert eight_bits(PILImage.new(mode, (2, 2), clear), 1).getpixel((0, 0)) == 255


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_a_transparent_colour_is_white(mode):
    file = io.BytesIO()
    black = (0, 0, 0) if mode == "RGB" else 0
    PILImage.new(mode, (2, 2), black).save(file, "PNG", transparency=black)
    assert read_image({"bytes": file.getvalue(), "path": None}, 3, "row 0").getpixel((1, 1)) == (255, 255, 255)


class TestAllCommandsReadAlike:
    """`prepare` is adapt's, evaluate's and divergence's; `make_batches` is rank's."""

    def read(self, rows, way):
        model = tiny.vit()
        if way == "rank":
            columns = choose_columns(rows, model)
            return next(iter(make_batches(rows, columns, image_processor(14, 1), model, batch_size=8)))[0][
                "pixel_values"
            ]
        return prepare(rows, model.config, image_processor(14, 1) if way == "processor" else None)[:]["pixel_values"]

    @pytest.mark.parametrize("way", ["processor", "size", "rank"])
    def test_deep_pictures_are_those_of_eight_bits(self, raw, way):
        deep = [np.asarray(image).astype(np.uint16) * 257 for image in raw["image"][:4]]
        rows = Dataset.from_dict({"image": deep, "label": raw["label"][:4]}, features=raw.features)
        assert rows[0]["image"].mode == "I;16"
        assert torch.equal(self.read(rows, way), self.read(raw.select(range(4)), way))

    @pytest.mark.parametrize("way", ["processor", "size", "rank"])
    @pytest.mark.parametrize("place", [0, 2])
    def test_a_truncated_file_is_named(self, raw, tmp_path, way, place):
        for one in range(3):
            path = tmp_path / str(one % 2) / f"{one}.png"
            path.parent.mkdir(exist_ok=True)
            raw[one]["image"].save(path)
        damaged = tmp_path / str(place % 2) / f"{place}.png"
        damaged.write_bytes(damaged.read_bytes()[:-30])
        rows = load_dataset("imagefolder", data_dir=str(tmp_path))["train"]
        with pytest.raises(ValueError, match=rf"cannot read the picture .*/{place}.png: .*Mend it, or leave it out"):
            self.read(rows, way)

    @pytest.mark.parametrize("way", ["processor", "size", "rank"])
    @pytest.mark.parametrize("damaged", [b"", b"no picture"])
    def test_a_damaged_cell_is_named_by_its_row_in_the_data(self, raw, way, damaged):
        file = io.BytesIO()
        raw[0]["image"].save(file, "PNG")
        cells = [{"bytes": file.getvalue(), "path": None}] * 3 + [{"bytes": damaged, "path": None}]
        rows = Dataset.from_dict({"image": cells, "label": [0] * 4}, features=raw.features)
        with pytest.raises(ValueError, match="cannot read the picture row 3 of column `image`"):
            self.read(rows.select([0, 3]), way)

    def test_no_picture_at_all(self, raw):
        rows = Dataset.from_dict({"image": [raw[0]["image"], None], "label": [0, 1]}, features=raw.features)
        with pytest.raises(ValueError, match="row 1 of column `image` has no picture"):
            self.read(rows, "size")


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
