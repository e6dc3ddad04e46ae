"""Sounds read from files of any rate and number of channels, as one channel at the rate of a model.

A file of several channels is their mean; a file of another rate is resampled by a polyphase filter (scipy). What is
empty, silent or no sound is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from io import BytesIO
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Audio, Dataset, DatasetDict
from scipy.signal import resample_poly
from torch import Tensor
from transformers.utils import logging

from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.class_names import number_words
from hf_transfer.data.holes import row_name
from hf_transfer.data.image_folders import folders_of_files
from hf_transfer.data.optional import import_optional

logger = logging.get_logger(__name__)

SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au")
VALUES = "input_values"
"""The column of samples, by the name that models of sounds give it."""


def holds_sounds(folder: Path) -> bool:
    """Whether there is a sound in the folder or in one inside."""
    return any(path.suffix.lower() in SOUND_SUFFIXES for path in folder.rglob("*"))


def load_sounds(folder: Path) -> DatasetDict:
    """The sounds of a folder by split, with a `label` where the folders inside name classes; as `load_pictures`."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES)
    files, has_classes = folders_of_files(found, folder)
    splits = {}
    for split, paths in files.items():
        rows: dict[str, list] = {"audio": [{"bytes": None, "path": path} for path in paths]}
        if has_classes:
            rows["label"] = [Path(path).parent.name for path in paths]
        splits[split] = number_words(Dataset.from_dict(rows)).cast_column("audio", Audio(decode=False))
    return DatasetDict(splits)


def sound_columns(dataset: Dataset) -> list[str]:
    """The columns of sounds."""
    return [name for name, feature in dataset.features.items() if isinstance(feature, Audio)]


def read_sound(cell: Mapping[str, Any] | None, rate: int, name: str) -> np.ndarray:
    """The samples [T] float32 of a sound.

    Args:
        cell: {"path": ..., "bytes": ...} of an `Audio(decode=False)`.
        rate: samples a second that are wanted.
        name: of the row, for messages.

    Raises:
        ValueError: the cell is empty; the file is not there, no sound, empty, silent or holds what is no number.
    """
    if cell is None:
        raise ValueError(f"{name} is empty: fill the cell, or leave the row out.")
    path, content = cell.get("path"), cell.get("bytes")
    name = f"{name} (`{path}`)" if path else name
    soundfile = import_optional("soundfile", "reading sounds")
    try:
        samples, own = soundfile.read(BytesIO(content) if content else path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise ValueError(f"{name} cannot be read as a sound: {str(error).rstrip('.')}.") from error
    one = samples.mean(axis=1)
    reason = None
    if len(one) == 0:
        reason = "holds no sample"
    elif not np.isfinite(one).all():
        reason = "holds samples that are not finite"
    elif np.ptp(one) == 0:
        cancels = "its channels cancel each other" if np.ptp(samples, axis=0).any() else "every sample is the same"
        reason = f"is silent: {cancels}"
    if reason is not None:
        raise ValueError(f"{name} {reason}: mend the file, or leave the row out.")
    if own == rate:
        return one
    common = gcd(own, rate)
    return resample_poly(one, rate // common, own // common).astype(np.float32)


def with_samples(dataset: Dataset, column: str, extractor: Any, least: int = 1) -> Dataset:
    """The rows with the samples of their sounds in `input_values` in place of the column, or with their spectrograms.

    Args:
        dataset: rows.
        column: of sounds.
        extractor: of the model; it says how many samples a second there are.
        least: samples that a model needs for one state.

    Raises:
        ValueError: as `read_sound`; or a sound shorter than that.
    """
    dataset, rate = dataset.cast_column(column, Audio(decode=False)), extractor.sampling_rate

    def convert(rows: dict[str, list], indices: list[int]) -> dict[str, list]:
        sounds = []
        for cell, index in zip(rows[column], indices, strict=True):
            sound = read_sound(cell, rate, row_name(dataset, index, column))
            if len(sound) < least:
                raise ValueError(
                    f"{row_name(dataset, index, column)} (`{cell.get('path')}`) has {len(sound)} samples at {rate} "
                    f"Hz, and the model needs {least} for one state: leave it out."
                )
            sounds.append(sound)
        seconds.append(sum(map(len, sounds)) / rate)
        return {VALUES: sounds if pads(extractor) else list(sound_batch(extractor, sounds)[VALUES].numpy())}

    options = {"batched": True, "batch_size": 16, "with_indices": True, "remove_columns": [column]}
    seconds: list[float] = []
    ready = dataset.map(convert, **options, load_from_cache_file=False, desc="Reading sounds")
    logger.warning(f"{len(ready)} sounds of {sum(seconds):.0f} seconds, one channel at {rate} Hz.")
    return ready


def pads(extractor: Any) -> bool:
    """Whether sounds of several lengths become a padded batch, and not spectrograms of one size."""
    return "padding" in signature(extractor.__call__).parameters


def least_samples(config: Any) -> int:
    """How many samples the convolutions of a model of raw sound need for one state; 1 for other models."""
    kernels, strides = (getattr(config, f"conv_{name}", None) for name in ("kernel", "stride"))
    least = 1
    if kernels and strides:
        for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
            least = (least - 1) * stride + kernel
    return least


def sound_batch(extractor: Any, sounds: Sequence[Any]) -> dict[str, Tensor]:
    """What a model reads of some sounds: padded samples and their mask, or spectrograms.

    Args:
        extractor: the model's feature extractor.
        sounds: [T] each, or spectrograms [T, F] that were made before.
    """
    if np.ndim(sounds[0]) == 2:
        return {VALUES: torch.as_tensor(np.stack(sounds), dtype=torch.float32)}
    values = [np.asarray(sound, dtype=np.float32) for sound in sounds]
    options = {"sampling_rate": extractor.sampling_rate, "return_tensors": "pt"}
    if pads(extractor):
        options |= {"padding": True, "return_attention_mask": True}
    return dict(extractor(values, **options))


@dataclass(frozen=True)
class SoundCollator:
    """Batches of `sound_batch`, with `labels` and `domain` where rows have them.

    Args:
        extractor: the model's feature extractor.
    """

    extractor: Any

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch = sound_batch(self.extractor, [row[VALUES] for row in rows])
        label = next((name for name in LABEL_COLUMNS if name in rows[0]), None)
        if label is not None:
            batch["labels"] = torch.as_tensor(np.asarray([row[label] for row in rows]))
        if "domain" in rows[0]:
            batch["domain"] = torch.as_tensor(np.asarray([row["domain"] for row in rows]))
        return batch
