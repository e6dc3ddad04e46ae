"""Folders of pictures: which subfolders are splits and which are classes is decided by the folders alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets import DatasetDict, load_dataset
from datasets.data_files import SPLIT_KEYWORDS
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

SPLIT_OF = {word: str(split) for split, words in SPLIT_KEYWORDS.items() for word in words}
"""Name of a folder -> its split, as `datasets` has them: training -> train, val -> validation."""


def holds_pictures(folder: Path) -> bool:
    """Whether there is a picture in the folder or in one inside."""
    return any(path.suffix.lower() in ImageFolder.EXTENSIONS for path in folder.rglob("*"))


def load_pictures(folder: Path) -> DatasetDict:
    """The pictures of a folder by split, with a `label` where the folders inside name classes.

    Where every subfolder with pictures has the name of a split they are splits, and their names are no classes;
    otherwise all pictures are the split `train`, whatever their files are called.

    Args:
        folder: of pictures, of a folder for each class, or of a folder for each split.

    Raises:
        ValueError: a picture was passed over.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ImageFolder.EXTENSIONS)
    if not found or any(folder.rglob("metadata.*")):
        return load_dataset("imagefolder", data_dir=str(folder))  # with its own message, or a table of labels
    files, has_classes = folders_of_files(found, folder)
    loaded = load_dataset("imagefolder", data_files=files, drop_labels=not has_classes)
    if sum(len(rows) for rows in loaded.values()) != len(found):
        raise ValueError(f"{len(found)} pictures are there, and {sum(map(len, loaded.values()))} were read")
    return loaded


def folders_of_files(found: Sequence[Path], folder: Path) -> tuple[dict[str, list[str]], bool]:
    """The files of every split, and whether the folders that they lie in are classes.

    Args:
        found: files inside the folder.
        folder: of one or more levels.
    """
    tops = {path.relative_to(folder).parts[0] for path in found if path.parent != folder}
    is_split = (
        bool(tops) and all(top.lower() in SPLIT_OF for top in tops) and all(path.parent != folder for path in found)
    )
    files: dict[str, list[str]] = {}
    for path in found:
        split = SPLIT_OF[path.relative_to(folder).parts[0].lower()] if is_split else "train"
        files.setdefault(split, []).append(str(path))
    # What lies in the split's own folder has no class.
    depth = 2 if is_split else 1
    return files, any(len(path.relative_to(folder).parts) > depth for path in found)
