"""From a raw dataset (images or text and a label) to the columns a model reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Image
from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin

from hf_transfer.data.captions import caption_column, caption_tokens
from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.columns import without_labels
from hf_transfer.data.holes import refuse_empty_cells, row_name
from hf_transfer.data.images import PixelReader, read_image, undecoded, with_pixel_values
from hf_transfer.data.language_blocks import language_blocks
from hf_transfer.data.pixel_tokens import pixel_tokens, reads_pixel_tokens
from hf_transfer.data.text_collator import TextCollator
from hf_transfer.data.text_columns import find_text_columns
from hf_transfer.data.text_length import check_vocabulary, reading_length, text_positions
from hf_transfer.data.text_padding import settle_padding_side
from hf_transfer.data.time_series import series_shape
from hf_transfer.data.trajectories import TrajectoryProcessor, trajectory_shape, windows

READY_COLUMNS = ("pixel_values", "input_ids", "input_values", "past_values", "inputs_embeds")
"""A dataset with one of these already holds model inputs."""
ROWS_AT_ONCE = 10_000
TIMM = "timm_wrapper"
"""The kind of every model of timm's, whose configuration does not say how many channels it reads."""


def prepare(
    dataset: Dataset,
    config: PreTrainedConfig,
    processor: Any = None,
    *,
    text_columns: Sequence[str] = (),
    max_length: int | None = None,
    block_size: int | None = None,
    keep_labels: bool = True,
    collator: TextCollator | None = None,
    keep_columns: Collection[str] = (),
) -> Dataset:
    """The dataset as model inputs with a `labels` column; a dataset that already holds them comes back as it is.

    Images go through `processor` where there is one, otherwise they are resized to `config.image_size` and scaled to
    [-1, 1].

    Args:
        dataset: rows with an image column, or one or two text columns, and possibly a label; with an image and a text
            column for a model with two towers.
        config: the model's configuration.
        processor: the model's tokenizer or image processor, or both in one for two towers.
        text_columns: which string columns to read; all of them when there are at most two.
        max_length: cut text after so many tokens, or fewer where the model or its tokenizer says so.
        block_size: join the texts and cut them into blocks of so many tokens instead, see `language_blocks`.
        keep_labels: False drops the label.
        collator: makes rows of texts that may be longer or shorter than these.
        keep_columns: beside what the model reads; blocks of joined texts have none.

    Raises:
        ValueError: no column that the model could read, a text column that is not there, no tokenizer for text, or
            series and trajectories of other sizes than the model's.
    """
    if isinstance(processor, TrajectoryProcessor):
        check_trajectories(dataset, config)
        return windows(dataset, processor)
    labelled = dataset
    if not keep_labels:
        dataset = without_labels(dataset)
    if "past_values" in dataset.column_names:
        check_series(dataset, config)
    if any(name in dataset.column_names for name in READY_COLUMNS):
        return dataset
    images = _image_columns(dataset)
    if images and reads_pixel_tokens(processor):
        return pixel_tokens(dataset, images[0], config, processor)
    check_modality(dataset, config)
    if isinstance(processor, ProcessorMixin):
        return _prepare_pairs(dataset, config, processor, text_columns, max_length, keep_columns)
    if images:
        return _prepare_images(dataset, images[0], config, processor)
    columns = list(text_columns) or find_text_columns(labelled)
    missing = sorted(set(columns) - set(dataset.column_names))
    if missing:
        raise ValueError(f"`text_columns` names {missing}, and the dataset has {dataset.column_names}.")
    if not isinstance(processor, PreTrainedTokenizerBase):
        raise ValueError(f"columns {columns} hold text, and the model's folder has no tokenizer to read them.")
    refuse_empty_cells(dataset, columns, "given")
    if block_size is not None:
        return _in_blocks(dataset, config, processor, columns, block_size, collator)
    longest = reading_length(config, processor, max_length)
    if longest is not None and collator is not None:
        longest = collator.raw_length(longest)
    settle_padding_side(processor, config)
    ready = _with_tokens(dataset, processor, columns, longest, keep_columns)
    check_vocabulary(_largest(ready), processor, config)
    return ready


def check_modality(dataset: Dataset, config: PreTrainedConfig, processor: Any = None) -> None:
    """Raises ValueError when the dataset holds images and the model reads none, or no series and it reads these.

    Args:
        dataset: rows as they are.
        config: of the model.
        processor: of the model; one that gives a token for each pixel lets a model of tokens read images.
    """
    images = [] if reads_pixel_tokens(processor) else _image_columns(dataset)
    reads_images = hasattr(getattr(config, "vision_config", config), "num_channels") or config.model_type == TIMM
    reads_images = reads_images or hasattr(config, "backbone_config")
    if images and not reads_images:
        raise ValueError(f"column `{images[0]}` holds images, and a {config.model_type} model reads none.")
    if getattr(config, "modality", None) == "time_series" and "past_values" not in dataset.column_names:
        raise ValueError(
            "the model reads series, lists of numbers in a column `past_values`, and the dataset has "
            f"{dataset.column_names}. A table with a column for every step is read whole: leave `streaming` out."
        )


def _image_columns(dataset: Dataset) -> list[str]:
    return [name for name, feature in dataset.features.items() if isinstance(feature, Image)]


def check_series(dataset: Dataset, config: PreTrainedConfig) -> None:
    """The series fit the model.

    Raises:
        ValueError: another number of channels than the model's, or more steps than it has places for.
    """
    channels, longest = series_shape(dataset)
    wanted = getattr(config, "num_input_channels", channels)
    indices = getattr(config, "max_position_embeddings", longest)
    if channels != wanted:
        raise ValueError(f"the series have {channels} channels, and the model `num_input_channels={wanted}`.")
    bounded = getattr(config, "pooling", None) == "flatten" or (
        getattr(config, "position_embedding_type", None) == "learned"
    )
    if bounded and longest > indices:
        raise ValueError(f"the series have up to {longest} steps, and the model `max_position_embeddings={indices}`.")


def check_trajectories(dataset: Dataset, config: PreTrainedConfig) -> None:
    """Raises ValueError when states or actions are of other sizes, or episodes longer, than the model's."""
    state_dim, act_dim, longest = trajectory_shape(dataset)
    for name, size in (("state_dim", state_dim), ("act_dim", act_dim)):
        if getattr(config, name) != size:
            raise ValueError(f"the trajectories have {name} {size}, and the model `{name}={getattr(config, name)}`.")
    if longest > config.max_episode_length:
        raise ValueError(
            f"the episodes have up to {longest} steps, and the model `max_episode_length={config.max_episode_length}`."
        )


def _in_blocks(
    dataset: Dataset,
    config: PreTrainedConfig,
    tokenizer: Any,
    columns: list[str],
    block_size: int,
    collator: TextCollator | None,
) -> Dataset:
    if len(columns) != 1:
        raise ValueError(f"`block_size` joins the texts of one column, got {columns}: name one by `text_columns`.")
    indices = text_positions(config)
    if indices is not None and block_size > indices:
        raise ValueError(
            f"`block_size={block_size}` is more than the {indices} tokens that the model has positions for "
            f"(`max_position_embeddings={config.get_text_config().max_position_embeddings}`)."
        )
    raw = block_size if collator is None else collator.raw_length(block_size)
    blocks = language_blocks(dataset, tokenizer, raw, columns[0], collator is None or collator.keeps_structure)
    check_vocabulary(_largest(blocks), tokenizer, config)
    return blocks


def _prepare_images(dataset: Dataset, column: str, config: PreTrainedConfig, processor: Any) -> Dataset:
    # An image and text model keeps what it says of images in a part of its own.
    config = getattr(config, "vision_config", config)
    if processor is None:
        return with_pixel_values(dataset, _image_size(config), config.num_channels, column)
    channels = getattr(config, "num_channels", 3)
    dataset = undecoded(dataset, column)

    def pixels_of(cells: list, indices: list[int]) -> Any:
        pictures = [
            read_image(cell, channels, row_name(dataset, index, column)) for cell, index in zip(cells, indices)
        ]
        # As tensors: the processor of timm's models makes nothing else.
        return processor(pictures, return_tensors="pt")["pixel_values"]

    first = np.asarray(pixels_of([dataset[0][column]], [0])[0])

    def convert(rows: dict, indices: list[int]) -> dict:
        pixels = pixels_of(rows[column], indices)
        return {"pixel_values": [np.asarray(image, dtype=np.float32).tobytes() for image in pixels]}

    ready = dataset.map(convert, batched=True, with_indices=True, remove_columns=[column], desc="Reading images")
    return _with_labels(ready).with_transform(PixelReader(*first.shape))


def _prepare_pairs(
    dataset: Dataset,
    config: PreTrainedConfig,
    processor: Any,
    text_columns: Sequence[str],
    max_length: int | None,
    keep_columns: Collection[str],
) -> Dataset:
    """Pixels and tokens of every row, and its label where it has one."""
    images = _image_columns(dataset)
    if len(images) != 1:
        raise ValueError(
            f"pairs of an image and a text need one image column, got {images} in {dataset.column_names}: leave the "
            'others out, or make paths a column of pictures, dataset.cast_column("path", datasets.Image()).'
        )
    column = caption_column(dataset, text_columns)
    rest = [name for name in dataset.column_names if name not in (*images, *LABEL_COLUMNS, *keep_columns)]

    def tokenize(rows: dict) -> dict:
        return caption_tokens(rows[column], processor.tokenizer, config, max_length)

    ready = dataset.map(tokenize, batched=True, remove_columns=rest, desc="Reading text")
    check_vocabulary(_largest(ready), processor.tokenizer, config)
    return _prepare_images(ready, images[0], config, processor.image_processor)


def _image_size(config: PreTrainedConfig) -> int:
    size = getattr(config, "image_size", None)
    if size is None:
        raise ValueError(
            f"neither the configuration of a {config.model_type} model nor an image processor says how large its "
            "images are: give `image_size` in `architecture`, or save the model with its image processor."
        )
    if isinstance(size, (tuple, list)):
        if size[0] != size[1]:
            raise ValueError(f"the model reads images of {size}; give its image processor to resize to that shape.")
        size = size[0]
    return size


def texts_of(dataset: Dataset, text_columns: Sequence[str] = ()) -> Iterator[str]:
    """Every text of the columns that a run reads, column by column. Raises ValueError for an empty cell."""
    columns = list(text_columns) or find_text_columns(dataset)
    refuse_empty_cells(dataset, columns, "training")
    for column in columns:
        yield from dataset[column]


def _with_tokens(
    dataset: Dataset, tokenizer: Any, columns: list[str], max_length: int | None, keep_columns: Collection[str]
) -> Dataset:
    rest = [name for name in dataset.column_names if name not in (*LABEL_COLUMNS, *keep_columns)]

    def tokenize(rows: dict) -> dict:
        return tokenizer(*(rows[name] for name in columns), truncation=True, max_length=max_length)

    return _with_labels(dataset.map(tokenize, batched=True, remove_columns=rest, desc="Reading text"))


def _largest(ready: Dataset) -> list[int]:
    """The largest token number of every part of a table."""
    parts = ready.with_format("arrow", columns=["input_ids"]).iter(batch_size=ROWS_AT_ONCE)
    values = [pc.max(pc.list_flatten(part["input_ids"])).as_py() for part in parts]
    return [value for value in values if value is not None]


def _with_labels(dataset: Dataset) -> Dataset:
    if "label" in dataset.column_names and "labels" not in dataset.column_names:
        return dataset.rename_column("label", "labels")
    return dataset
