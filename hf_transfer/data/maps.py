"""From pictures and masks to `pixel_values` and maps of `labels` of the same size, stored as bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Image, Value
from transformers import PreTrainedConfig

from hf_transfer.data.domain_rows import NO_MAP
from hf_transfer.data.images import PixelReader, check_whole_pictures, undecoded
from hf_transfer.data.masks import CLASSES_COLUMN, check_mask, map_at, mask_name, read_mask
from hf_transfer.data.prepare import prepare


class MapReader(PixelReader):
    """As PixelReader, and `labels` [B, H, W] of maps; a row without a map has the ignored class everywhere.

    Args:
        num_channels, height, width: of the pictures; maps are as high and as wide.
        ignored: class of pixels that have none.
    """

    def __init__(self, num_channels: int, height: int, width: int, ignored: int):
        super().__init__(num_channels, height, width)
        self.ignored = ignored

    def __call__(self, rows: dict[str, list]) -> dict[str, Any]:
        maps = rows.get("labels")
        read = super().__call__({name: values for name, values in rows.items() if name != "labels"})
        return read if maps is None else {**read, "labels": torch.stack([self._map(one) for one in maps])}

    def _map(self, stored: bytes) -> torch.Tensor:
        size = self.shape[-2:]
        if stored == NO_MAP:
            return torch.full(size, self.ignored)
        return torch.from_numpy(np.frombuffer(bytearray(stored), dtype=np.int16).reshape(size)).long()


def with_maps(rows: Dataset, config: PreTrainedConfig, processor: Any, ignored: int, keep_labels: bool) -> Dataset:
    """Arranged rows as inputs of a segmentation model.

    Args:
        rows: a column of pictures, and `labels` with masks where there are any.
        config: of the model.
        processor: its image processor, or None.
        ignored: the class that the model's loss leaves out.
        keep_labels: False drops the masks; rows without masks get empty maps where it is true.

    Raises:
        ValueError: a mask that is damaged, not as large as its picture, or has other classes; or the processor cuts
            pictures, which masks would not follow.
    """
    check_whole_pictures(processor)
    image = next(name for name, feature in rows.features.items() if isinstance(feature, Image) and name != "labels")
    rows = rows.remove_columns(sorted({CLASSES_COLUMN} & set(rows.column_names)))
    labelled = keep_labels and "labels" in rows.column_names
    plain = rows.select_columns([image])
    channels, height, width = prepare(plain.select([0]), config, processor)[0]["pixel_values"].shape
    if labelled:
        rows = _with_stored_maps(rows, image, (height, width), config.num_labels, ignored)
    elif "labels" in rows.column_names:
        rows = rows.remove_columns("labels")
    ready = prepare(rows, config, processor)
    if keep_labels and not labelled:
        ready = ready.with_format(None).add_column("labels", [NO_MAP] * len(ready), feature=Value("binary"))
    return ready.with_transform(MapReader(channels, height, width, ignored))


def _with_stored_maps(rows: Dataset, image: str, size: tuple[int, int], classes: int, ignored: int) -> Dataset:
    plain = undecoded(undecoded(rows.with_format(None), "labels"), image)

    def convert(picture: Any, cell: Any, place: int) -> dict[str, bytes]:
        name = mask_name(rows, place, cell)
        mask = read_mask(cell, name)
        check_mask(mask, picture, name, classes)
        return {"labels": map_at(mask, *size, ignored)}

    features = Features({**plain.features, "labels": Value("binary")})
    made = plain.map(
        convert, input_columns=[image, "labels"], with_indices=True, features=features, desc="Reading masks"
    )
    return made.cast_column(image, rows.features[image])
