"""COCO-style annotation files as rows: pictures with boxes and categories.

    {"images": [{"id", "file_name", "width", "height"}], "annotations": [{"image_id", "bbox", "category_id"}],
     "categories": [{"id", "name"}]}

Pictures are looked for beside the file, in `images` there, and in the folder above. Crowds (`iscrowd`) are left out.
Where the file says how large a picture is, it has to be right: boxes are in these pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Features, Image, List, Value
from transformers.utils import logging

from hf_transfer.data.masks import opened, size_of

logger = logging.get_logger(__name__)

PARTS = ("images", "annotations", "categories")
KEYS = {"images": ("id", "file_name"), "annotations": ("bbox",), "categories": ("id", "name")}
"""What every item of a part needs, beside what is asked for by its value."""
PLACES = (".", "images", "..", "../images")


def is_coco(found: Mapping[str, Any]) -> bool:
    """Whether the object of a json file has the parts of a COCO-style one."""
    return all(isinstance(found.get(part), list) for part in PARTS)


def coco_rows(parts: dict[str, Any], path: Path) -> Dataset:
    """`image` and `objects` of every picture of the file, pictures without objects too.

    Raises:
        ValueError: no pictures, no annotations, a picture that is not there, an annotation of an unknown picture or
            category, something without one of these keys, two categories of one name, or a picture of another size.
    """
    if not parts["images"] or not parts["annotations"]:
        raise ValueError(
            f"it has {len(parts['images'])} images and {len(parts['annotations'])} annotations: there is nothing to "
            "learn from"
        )
    for part, keys in KEYS.items():
        check_keys(parts[part], part, keys)
    categories = {one["id"]: str(one["name"]) for one in sorted(parts["categories"], key=lambda one: one["id"])}
    names = list(categories.values())
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"it has several categories of the names {twice[:10]}: give each a name of its own")
    pictures = {one["id"]: one["file_name"] for one in parts["images"]}
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    crowds = 0
    for number, one in enumerate(parts["annotations"]):
        if one.get("image_id") not in pictures:
            raise ValueError(f"annotation {number} is of the image {one.get('image_id')!r}, which it does not list")
        if one.get("category_id") not in categories:
            raise ValueError(
                f"annotation {number} has the category {one.get('category_id')!r}, which it does not list"
            )
        crowds += bool(one.get("iscrowd"))
        if not one.get("iscrowd"):
            found[one["image_id"]].append(one)
    if crowds:
        logger.warning(f"`{path}`: {crowds} crowds are left out.")
    if any(one.get("keypoints") for one in parts["annotations"]):
        logger.warning(
            f"`{path}`: boxes are read, its key points are not: give these as a column `keypoints` of [x, y, visible] "
            "in a table or in metadata.jsonl beside the pictures."
        )
    places = {key: place_of(name, path) for key, name in pictures.items()}
    for one in parts["images"]:
        check_size(one, places[one["id"]])
    rows = [
        {
            "image": str(places[key]),
            "objects": {
                "bbox": [one["bbox"] for one in found[key]],
                "category": [names.index(categories[one["category_id"]]) for one in found[key]],
            },
        }
        for key in pictures
    ]
    objects = {"bbox": List(List(Value("float32"))), "category": List(ClassLabel(names=names))}
    return Dataset.from_list(rows, features=Features({"image": Image(), "objects": objects}))


def check_keys(items: list[Any], part: str, keys: tuple[str, ...]) -> None:
    """Raises ValueError where an item of a part of the file lacks a key; crowds need none."""
    for number, one in enumerate(items):
        missing = [key for key in keys if key not in one] if isinstance(one, dict) else list(keys)
        if missing and not (isinstance(one, dict) and one.get("iscrowd")):
            raise ValueError(f"item {number} of `{part}` has no `{missing[0]}`")


def check_size(one: Mapping[str, Any], path: Path) -> None:
    """Raises ValueError where an item of `images` says another size than the picture is shown in.

    A picture that cannot be opened is told when it is read.
    """
    if not all(isinstance(one.get(side), int) for side in ("width", "height")):
        return
    told = one["width"], one["height"]
    try:
        shown, stored = size_of({"path": str(path)}), opened({"path": str(path)}).size
    except OSError:
        return
    if told == shown:
        return
    turned = "; it is stored so and shown turned, by its EXIF orientation" if told == stored else ""
    raise ValueError(
        f"it says that the picture `{one['file_name']}` has {told[0]} x {told[1]} pixels, and it has {shown[0]} x "
        f"{shown[1]}{turned}: boxes should be in pixels of the picture as it is shown"
    )


def place_of(name: str, path: Path) -> Path:
    """The file of a picture that an annotation file names.

    Raises:
        ValueError: it is nowhere.
    """
    for place in PLACES:
        candidate = path.parent / place / name
        if candidate.is_file():
            return candidate
    raise ValueError(f"it names the picture `{name}`, which is neither beside it nor in `images` there or above")
