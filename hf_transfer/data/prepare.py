"""From a raw dataset (images or text and a label) to the columns a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Image
from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import LARGE_INTEGER

from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.class_names import WORDS
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
        max_length: cut text after so many tokens, or fewer where the model or its tokenizer says so.
        keep_labels: False drops the label.

    Raises:
        ValueError: no column that the model could read, a text column that is not there, or no tokenizer for text.
    """
    if not keep_labels:
        dataset = dataset.remove_columns([name for name in LABEL_COLUMNS if name in dataset.column_names])
    if any(name in dataset.column_names for name in READY_COLUMNS):
        return dataset
    images = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
    if images:
        return _prepare_images(dataset, images[0], config, processor)
    columns = list(text_columns) or _text_columns(dataset)
    missing = sorted(set(columns) - set(dataset.column_names))
    if missing:
        raise ValueError(f"`text_columns` names {missing}, and the dataset has {dataset.column_names}.")
    if not isinstance(processor, PreTrainedTokenizerBase):
        raise ValueError(f"columns {columns} hold text, and the model's folder has no tokenizer to read them.")
    return _with_tokens(dataset, processor, columns, _longest_text(config, processor, max_length))


def _prepare_images(dataset: Dataset, column: str, config: PreTrainedConfig, processor: Any) -> Dataset:
    # An image and text model keeps what it says of images in a part of its own.
    config = getattr(config, "vision_config", config)
    if not hasattr(config, "num_channels"):
        raise ValueError(f"column `{column}` holds images, and a {config.model_type} model reads none.")
    if processor is None:
        return with_pixel_values(dataset, _image_size(config), config.num_channels, column)
    mode = "L" if config.num_channels == 1 else "RGB"
    first = np.asarray(processor(dataset[0][column].convert(mode), return_tensors="np")["pixel_values"][0])

    def convert(rows: dict) -> dict:
        pixels = processor([image.convert(mode) for image in rows[column]], return_tensors="np")["pixel_values"]
        return {"pixel_values": [np.asarray(image, dtype=np.float32).tobytes() for image in pixels]}

    ready = dataset.map(convert, batched=True, remove_columns=[column], desc="Reading images")
    return _with_labels(ready).with_transform(PixelReader(*first.shape))


def _image_size(config: PreTrainedConfig) -> int:
    size = config.image_size
    if isinstance(size, (tuple, list)):
        if size[0] != size[1]:
            raise ValueError(f"the model reads images of {size}; give its image processor to resize to that shape.")
        size = size[0]
    return size


def _text_columns(dataset: Dataset) -> list[str]:
    texts = [name for name, feature in dataset.features.items() if getattr(feature, "dtype", None) in WORDS]
    columns = [name for name in texts if name not in LABEL_COLUMNS]
    if not 1 <= len(columns) <= 2:
        raise ValueError(
            f"found no image column and {len(columns)} text columns in {dataset.column_names}: name one or two by "
            "`text_columns`."
        )
    return columns


def _longest_text(config: PreTrainedConfig, tokenizer: Any, max_length: int | None) -> int | None:
    """The least of what is asked for, what the tokenizer allows and what the model has positions for."""
    limits = (max_length, tokenizer.model_max_length, getattr(config, "max_position_embeddings", None))
    # A tokenizer that knows no limit says 10^30.
    return min((limit for limit in limits if limit is not None and limit < LARGE_INTEGER), default=None)


def _with_tokens(dataset: Dataset, tokenizer: Any, columns: list[str], max_length: int | None) -> Dataset:
    rest = [name for name in dataset.column_names if name not in LABEL_COLUMNS]

    def tokenize(rows: dict) -> dict:
        return tokenizer(*(rows[name] for name in columns), truncation=True, max_length=max_length)

    return _with_labels(dataset.map(tokenize, batched=True, remove_columns=rest, desc="Reading text"))


def _with_labels(dataset: Dataset) -> Dataset:
    if "label" in dataset.column_names and "labels" not in dataset.column_names:
        return dataset.rename_column("label", "labels")
    return dataset
