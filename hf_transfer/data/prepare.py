"""From a raw dataset (images or text and a label) to the columns a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Image
from transformers import PreTrainedConfig

from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.images import PixelReader, with_pixel_values

READY_COLUMNS = ("pixel_values", "input_ids", "input_values", "past_values", "inputs_embeds")
"""A dataset with one of these already holds model inputs."""


def prepare(
    dataset: Dataset,
    config: PreTrainedConfig,
    processor: Any = None,
    *,
    text_columns: Sequence[str] = (),
    max_length: int | None = None,
    keep_labels: bool = True,
) -> Dataset:
    """The dataset as model inputs with a `labels` column; a dataset that already holds them comes back as it is.

    Images go through `processor` where there is one, otherwise they are resized to `config.image_size` and scaled to
    [-1, 1].

    Args:
        dataset: rows with an image column, or one or two text columns, and possibly a label.
        config: the model's configuration.
        processor: the model's tokenizer or image processor.
        text_columns: which string columns to read; all of them when there are at most two.
        max_length: cut text after so many tokens.
        keep_labels: False drops the label.

    Raises:
        ValueError: no column that the model could read, or no tokenizer for text.
    """
    if not keep_labels:
        dataset = dataset.remove_columns([name for name in LABEL_COLUMNS if name in dataset.column_names])
    if any(name in dataset.column_names for name in READY_COLUMNS):
        return dataset
    images = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
    if images:
        return _prepare_images(dataset, images[0], config, processor)
    return _with_tokens(dataset, processor, list(text_columns) or _text_columns(dataset), max_length)


def _prepare_images(dataset: Dataset, column: str, config: PreTrainedConfig, processor: Any) -> Dataset:
    if processor is None:
        return with_pixel_values(dataset, _image_size(config), config.num_channels, column)
    mode = "L" if config.num_channels == 1 else "RGB"
    first = np.asarray(processor(dataset[0][column].convert(mode), return_tensors="np")["pixel_values"][0])

    def convert(rows: dict) -> dict:
        pixels = processor([image.convert(mode) for image in rows[column]], return_tensors="np")["pixel_values"]
        return {"pixel_values": [np.asarray(image, dtype=np.float32).tobytes() for image in pixels]}

    ready = dataset.map(convert, batched=True, remove_columns=[column], desc="Reading images")
    return _with_labels(ready).with_transform(PixelReader(*first.shape[:2]))


def _image_size(config: PreTrainedConfig) -> int:
    size = config.image_size
    if isinstance(size, (tuple, list)):
        if size[0] != size[1]:
            raise ValueError(f"the model reads images of {size}; give its image processor to resize to that shape.")
        size = size[0]
    return size


def _text_columns(dataset: Dataset) -> list[str]:
    columns = [name for name, feature in dataset.features.items() if getattr(feature, "dtype", None) == "string"]
    if not 1 <= len(columns) <= 2:
        raise ValueError(
            f"found no image column and {len(columns)} text columns in {dataset.column_names}: name one or two by "
            "`text_columns`."
        )
    return columns


def _with_tokens(dataset: Dataset, tokenizer: Any, columns: list[str], max_length: int | None) -> Dataset:
    if tokenizer is None:
        raise ValueError(f"columns {columns} hold text, and the model's folder has no tokenizer to read them.")
    rest = [name for name in dataset.column_names if name not in LABEL_COLUMNS]

    def tokenize(rows: dict) -> dict:
        return tokenizer(*(rows[name] for name in columns), truncation=True, max_length=max_length)

    return _with_labels(dataset.map(tokenize, batched=True, remove_columns=rest, desc="Reading text"))


def _with_labels(dataset: Dataset) -> Dataset:
    if "label" in dataset.column_names and "labels" not in dataset.column_names:
        return dataset.rename_column("label", "labels")
    return dataset
