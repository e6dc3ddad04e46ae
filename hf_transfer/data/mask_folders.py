"""Folders of pictures with a folder of masks beside them: `images/a.jpg` and `masks/a.png`, with or without splits.

images/*.jpg, masks/*.png
images/train/*.jpg, masks/train/*.png, ...
train/images/*.jpg, train/masks/*.png, ...
"""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, DatasetDict, Features, Image
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

from hf_transfer.data.image_folders import SPLIT_OF

IMAGE_FOLDERS = ("images", "image", "imgs", "pictures")
MASK_FOLDERS = ("masks", "mask", "annotations", "labels", "segmentation", "segmentations", "label_maps")
SUFFIXES = tuple(ImageFolder.EXTENSIONS)


def mask_folders(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Split -> its folders of pictures and of masks; nothing where the folder has no such layout."""
    pair = _pair(folder)
    if pair is None:
        inner = {path: _pair(path) for path in sorted(folder.iterdir()) if path.is_dir()}
        return {SPLIT_OF.get(path.name.lower(), path.name): found for path, found in inner.items() if found}
    images, masks = pair
    splits = {path.name for path in images.iterdir() if path.is_dir() and (masks / path.name).is_dir()}
    if not splits:
        return {"train": pair}
    return {SPLIT_OF.get(name.lower(), name): (images / name, masks / name) for name in sorted(splits)}


def _pair(folder: Path) -> tuple[Path, Path] | None:
    names = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    images = next((names[name] for name in IMAGE_FOLDERS if name in names), None)
    masks = next((names[name] for name in MASK_FOLDERS if name in names), None)
    return None if images is None or masks is None else (images, masks)


def load_masks(folder: Path) -> DatasetDict:
    """The pictures and masks of a folder by split, in the columns `image` and `mask`.

    Raises:
        ValueError: a picture without a mask, a mask without a picture, or two files of the same name.
    """
    return DatasetDict({split: _rows(*pair) for split, pair in mask_folders(folder).items()})


def _rows(images: Path, masks: Path) -> Dataset:
    pictures, maps = _by_stem(images), _by_stem(masks)
    for have, lack, what in ((pictures, maps, "mask"), (maps, pictures, "picture")):
        missing = sorted(set(have) - set(lack))
        if missing:
            raise ValueError(
                f"`{have[missing[0]]}` has no {what} of the same name ({len(missing)} such files): add it, or take "
                "the file out"
            )
    names = sorted(pictures)
    columns = {"image": [str(pictures[name]) for name in names], "mask": [str(maps[name]) for name in names]}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "mask": Image()}))


def _by_stem(folder: Path) -> dict[str, Path]:
    """Name without its suffix, below the folder -> file."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES:
            continue
        name = str(path.relative_to(folder).with_suffix(""))
        if name in found:
            raise ValueError(f"`{found[name]}` and `{path}` have the same name: keep one of them")
        found[name] = path
    return found
