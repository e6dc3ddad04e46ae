"""From an `image` column to the `pixel_values` a model reads, once for the whole dataset.

Every command reads pictures by `read_image`: any mode that Pillow knows becomes 8 bits a channel by its depth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage
from transformers import ViTImageProcessorPil
from transformers.utils import logging

from hf_transfer.data.holes import row_name

logger = logging.get_logger(__name__)

SIXTEEN_BITS = 65535
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
"""Formats whose deepest grey has 16 bits; some versions of Pillow give it as the 32-bit mode I."""
TWELVE_BITS = 4095


def eight_bits(image: PILImage.Image, num_channels: int) -> PILImage.Image:
    """A picture as 8-bit grey (L) or colour (RGB), scaled by its depth; what is transparent becomes white.

    Args:
        image: of any mode.
        num_channels: 1 for grey, colour otherwise.

    Raises:
        ValueError: 32-bit or floating-point pixels, which say nothing of what is white, or a mode without colours.
    """
    mode = "L" if num_channels == 1 else "RGB"
    if image.mode in DEEP_MODES or (image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS):
        values = np.asarray(image).astype(np.float64)
        if 0 < values.max(initial=0) <= TWELVE_BITS:
            logger.warning_once(
                "a 16-bit picture uses 12 bits or fewer, and is scaled by 16: if they all do, they come out dark; "
                "multiply their values by 16, or save them with 8 bits."
            )
        return PILImage.fromarray(np.round(values * (255 / SIXTEEN_BITS)).astype(np.uint8)).convert(mode)
    if image.mode in ("I", "F"):
        kind = "32-bit whole numbers" if image.mode == "I" else "floating-point numbers"
        raise ValueError(
            f"its pixels are {kind} (mode {image.mode}), which do not say what is black and what is white: scale them "
            "to 8 or 16 bits and save them so"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA") if image.mode != "La" else image.convert("LA").convert("RGBA")
        paper = PILImage.new("RGBA", image.size, "white")
        image = PILImage.alpha_composite(paper, image)
    if image.mode == "LAB" and mode == "L":
        image = image.convert("RGB")
    return image.convert(mode)


def read_image(cell: Any, num_channels: int, name: str) -> PILImage.Image:
    """The picture of one cell as `eight_bits` gives it.

    Args:
        cell: a picture, or what a column of undecoded pictures holds: {"bytes": ..., "path": ...}.
        num_channels: 1 for grey, colour otherwise.
        name: of the row, for the message; a path says more and replaces it.

    Raises:
        ValueError: no picture, one that is damaged or cannot be read in 8 bits; its file or row is named.
    """
    name = (cell.get("path") if isinstance(cell, dict) else getattr(cell, "filename", None)) or name
    if cell is None:
        raise ValueError(f"{name} has no picture: leave the row out.")
    try:
        return eight_bits(Image().decode_example(cell) if isinstance(cell, dict) else cell, num_channels)
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise ValueError(f"cannot read the picture {name}: {error}. Mend it, or leave it out.") from error


def undecoded(dataset: Dataset, column: str) -> Dataset:
    """The dataset with a picture column that gives bytes and paths, so that who opens them can name the damaged."""
    return dataset.cast_column(column, Image(decode=False)) if isinstance(dataset.features[column], Image) else dataset


def to_pixel_values(
    image: PILImage.Image, size: int, num_channels: int, mean: float = 0.5, std: float = 0.5
) -> np.ndarray:
    """[num_channels, size, size] float32, (value / 255 - mean) / std, resized bilinearly where the size differs."""
    image = eight_bits(image, num_channels)
    if image.size != (size, size):
        image = image.resize((size, size), PILImage.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.float32).reshape(size, size, num_channels).transpose(2, 0, 1) / 255.0
    return (pixels - mean) / std


class PixelReader:
    """Turns stored bytes into `pixel_values` [B, C, H, W] when rows are read.

    Arrow's nested lists take longer to read than a small model takes to train on them (measured: 45 ms against 3 ms
    for 128 images of 28x28), so the pixels are stored as one binary value a row.
    """

    def __init__(self, num_channels: int, height: int, width: int):
        self.shape = (-1, num_channels, height, width)

    def __call__(self, rows: dict[str, list]) -> dict[str, Any]:
        read = {name: _as_tensor(values) for name, values in rows.items() if name != "pixel_values"}
        if "pixel_values" in rows:
            joined = np.frombuffer(bytearray(b"".join(rows["pixel_values"])), dtype=np.float32)
            read["pixel_values"] = torch.from_numpy(joined).reshape(self.shape)
        return read


def _as_tensor(values: list) -> torch.Tensor | list:
    """Numbers as a tensor; names, texts, lists of different lengths and missing values as they are."""
    are_ragged = len({len(value) for value in values if isinstance(value, list)}) > 1
    if are_ragged or any(value is None or isinstance(value, (str, bytes, dict)) for value in values):
        return values
    return torch.tensor(values)


def only_picture_column(rows: Dataset, role: str) -> str:
    """The name of the column of pictures.

    Raises:
        ValueError: there is none, or there are several.
    """
    images = [name for name, feature in rows.features.items() if isinstance(feature, Image)]
    if len(images) != 1:
        raise ValueError(f"the {role} rows need one column of pictures, got {images} in {rows.column_names}.")
    return images[0]


def image_processor(size: int, num_channels: int) -> ViTImageProcessorPil:
    """The image processor that does what `to_pixel_values` does, to be saved with a model so that raw images can be
    read.

    Args:
        size: height and width in pixels.
        num_channels: 1 for grey, 3 for colour.
    """
    return ViTImageProcessorPil(
        size={"height": size, "width": size},
        image_mean=[0.5] * num_channels,
        image_std=[0.5] * num_channels,
        do_convert_rgb=num_channels == 3,
    )


def check_whole_pictures(processor: Any) -> None:
    """Raises ValueError for an image processor that cuts the middle out of pictures, which labels of their parts would
    not follow."""
    # ConvNeXt's resizes to more than its size, and cuts that out
    if getattr(processor, "do_center_crop", False) or getattr(processor, "crop_pct", None) is not None:
        raise ValueError(
            "the model's image processor cuts the middle out of pictures (do_center_crop or crop_pct), and labels of "
            "their parts would not fit: save one that resizes whole pictures with the model, such as "
            'ViTImageProcessor(size={"height": 224, "width": 224}).'
        )


def with_pixel_values(dataset: Dataset, size: int, num_channels: int, image_column: str = "image") -> Dataset:
    """The dataset with `pixel_values` [C, H, W] instead of images, and `labels` where it has a `label`, read as
    tensors.

    Args:
        dataset: rows with an image column.
        size: height and width in pixels, as the model's config says.
        num_channels: 1 for grey, 3 for colour.

    Raises:
        ValueError: there is no such image column, or a picture cannot be read.
    """
    if image_column not in dataset.column_names:
        raise ValueError(f"the dataset has no image column `{image_column}`; it has {dataset.column_names}.")
    kept = {name: feature for name, feature in dataset.features.items() if name != image_column}

    def convert(rows: dict, indices: list[int]) -> dict:
        names = [row_name(dataset, index, image_column) for index in indices]
        images = [read_image(cell, num_channels, name) for cell, name in zip(rows[image_column], names)]
        return {"pixel_values": [to_pixel_values(image, size, num_channels).tobytes() for image in images]}

    ready = undecoded(dataset.with_format(None), image_column).map(
        convert,
        batched=True,
        with_indices=True,
        remove_columns=[image_column],
        features=Features({**kept, "pixel_values": Value("binary")}),
        desc="Reading images",
    )
    if "label" in ready.column_names and "labels" not in ready.column_names:
        ready = ready.rename_column("label", "labels")
    return ready.with_transform(PixelReader(num_channels, size, size))
