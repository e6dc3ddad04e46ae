"""Emoji of a vendor pasted on pieces of photographs: pictures with masks, boxes and key points, and a vendor shift.

    scene = a s + (1 - a) b   for each pasted picture s with transparency a, on a random piece b of a photograph

Of every scene the place, the size and the emoji are drawn by a seeded generator. Scenes of the split `train` hold
emoji of the split `train` of `hf_transfer.data.emoji`, those of `test` the held-out ones. Two vendors draw the same
emoji differently, so that the same names of classes hold in both domains; layouts differ between vendors too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PILImage
from sklearn.datasets import load_sample_images

from hf_transfer.data.emoji import emoji

BACKGROUND = "background"
OPAQUE = 128
"""Least transparency value of a pixel that belongs to an object."""
POINTS = ("top", "right", "bottom", "left", "middle")
"""Of a key-point scene: the middles of the sides of the drawing, and its middle, turned with it."""
CATEGORIES = ("Smileys & Emotion", "Flags", "Food & Drink")
LARGEST_TURN = 60.0


@dataclass(frozen=True)
class SceneSettings:
    """How scenes are made. Raises ValueError for numbers out of range.

    Args:
        size: height and width of a scene in pixels.
        most: at most so many emoji in a scene, and at least one.
        smallest, largest: side of an emoji as a share of the scene's.
        background: number of the photograph behind all scenes; any of them when left out.
    """

    size: int = 64
    most: int = 3
    smallest: float = 0.3
    largest: float = 0.55
    background: int | None = None

    def __post_init__(self):
        if self.size < 16 or self.most < 1 or not 0 < self.smallest <= self.largest <= 1:
            raise ValueError(
                "scenes need `size` >= 16, `most` >= 1 and 0 < `smallest` <= `largest` <= 1, got "
                f"{self.size}, {self.most}, {self.smallest} and {self.largest}."
            )


def emoji_masks(
    vendor: str = "google",
    categories: Sequence[str] = CATEGORIES,
    rows: int = 1000,
    test_rows: int = 300,
    size: int = 64,
    background: int | None = None,
    seed: int = 0,
    folder: str | None = None,
) -> DatasetDict:
    """Scenes with a `mask` of classes: 0 is the background, then the categories in the order given; `classes` are
    those that the mask shows, with their names.

    Args:
        vendor, folder: as of `emoji`.
        categories: of the emoji that are pasted.
        rows, test_rows: how many scenes there are in `train` and in `test`.
        size: of a scene in pixels.
        background: number of the photograph behind all scenes; both of them when left out.
        seed: of all draws.

    Raises:
        ValueError: a category that there is not, a number out of range, and all that `emoji` raises.
    """
    settings = SceneSettings(size=size, background=background)
    names = ClassLabel(names=[BACKGROUND, *categories])
    features = Features({"image": Image(), "mask": Image(), "classes": List(names)})

    def row(scene: Scene) -> dict[str, Any]:
        shown = np.unique(scene.mask).tolist()
        return {"image": scene.image, "mask": PILImage.fromarray(scene.mask), "classes": shown}

    made = _scenes(vendor, folder, categories, settings, {"train": rows, "test": test_rows}, seed)
    return _tables(made, features, row)


def emoji_boxes(
    vendor: str = "google",
    categories: Sequence[str] = CATEGORIES,
    rows: int = 1000,
    test_rows: int = 300,
    size: int = 64,
    background: int | None = None,
    seed: int = 0,
    folder: str | None = None,
) -> DatasetDict:
    """Scenes with `objects`: a `bbox` [x, y, width, height] in pixels and a `category` for each emoji.

    Arguments and errors as of `emoji_masks`.
    """
    settings = SceneSettings(size=size, background=background)
    names = ClassLabel(names=list(categories))
    features = Features({"image": Image(), "objects": {"bbox": List(List(Value("float32"))), "category": List(names)}})

    def row(scene: Scene) -> dict[str, Any]:
        return {"image": scene.image, "objects": {"bbox": scene.boxes, "category": scene.classes}}

    made = _scenes(vendor, folder, categories, settings, {"train": rows, "test": test_rows}, seed)
    return _tables(made, features, row)


def emoji_points(
    vendor: str = "google",
    categories: Sequence[str] = CATEGORIES[:1],
    rows: int = 1000,
    test_rows: int = 300,
    size: int = 64,
    background: int | None = None,
    seed: int = 0,
    folder: str | None = None,
) -> DatasetDict:
    """Scenes of one turned emoji with `keypoints` [x, y, visible] in pixels, in the order of `POINTS`.

    Arguments and errors as of `emoji_masks`.
    """
    settings = SceneSettings(size=size, most=1, smallest=0.45, largest=0.6, background=background)
    features = Features({"image": Image(), "keypoints": List(List(Value("float32")))})
    made = _scenes(vendor, folder, categories, settings, {"train": rows, "test": test_rows}, seed, LARGEST_TURN)
    return _tables(made, features, lambda scene: {"image": scene.image, "keypoints": scene.points})


@dataclass
class Scene:
    """One picture [size, size] with the classes of its pixels, its boxes, their classes and key points."""

    image: PILImage.Image
    mask: np.ndarray
    boxes: list[list[float]]
    classes: list[int]
    points: list[list[float]]


def _scenes(
    vendor: str,
    folder: str | None,
    categories: Sequence[str],
    settings: SceneSettings,
    rows: dict[str, int],
    seed: int,
    turn: float = 0.0,
) -> dict[str, list[Scene]]:
    """Split -> its scenes."""
    if min(rows.values()) < 1:
        raise ValueError(f"`rows` and `test_rows` should be at least 1, got {rows}.")
    photographs = load_sample_images().images
    if settings.background is not None:
        if not 0 <= settings.background < len(photographs):
            raise ValueError(f"`background` should be from 0 to {len(photographs) - 1}, got {settings.background}.")
        photographs = [photographs[settings.background]]
    made = {}
    for place, (split, pictures) in enumerate(emoji(vendor, "category", folder).items()):
        drawings = drawings_by_class(pictures, categories)
        # another layout for every vendor, so that no scene of one has a twin of the other
        generator = np.random.default_rng([seed, place, *vendor.encode()])
        made[split] = [scene(drawings, photographs, settings, generator, turn) for _ in range(rows[split])]
    return made


def _tables(made: dict[str, list[Scene]], features: Features, row: Callable[[Scene], dict[str, Any]]) -> DatasetDict:
    """The scenes of every split as rows."""
    return DatasetDict({split: Dataset.from_list(list(map(row, scenes)), features) for split, scenes in made.items()})


def drawings_by_class(pictures: Dataset, categories: Sequence[str]) -> list[list[PILImage.Image]]:
    """The drawings of every category, without their transparent margins.

    Raises:
        ValueError: a category that there is not, or none.
    """
    names = pictures.features["label"].names
    unknown = sorted(set(categories) - set(names))
    if unknown or not categories:
        raise ValueError(f"`categories` should name some of {names}, got {list(categories)}.")
    labels = np.asarray(pictures["label"][:])
    found = []
    for category in categories:
        chosen = pictures.select(np.flatnonzero(labels == names.index(category)))["image"]
        drawings = [trimmed(one) for one in chosen]
        found.append([one for one in drawings if one is not None])
        if not found[-1]:
            raise ValueError(f"no drawing of the category `{category}` is in this split: leave it out.")
    return found


def trimmed(picture: PILImage.Image) -> PILImage.Image | None:
    """The drawing without its transparent margins; None where nothing is opaque."""
    picture = picture.convert("RGBA")
    box = opaque(picture)
    return None if box is None else picture.crop(box)


def opaque(picture: PILImage.Image) -> tuple[int, int, int, int] | None:
    """The box (left, upper, right, lower) of the pixels that belong to a drawing."""
    return picture.getchannel("A").point(lambda value: 255 if value >= OPAQUE else 0).getbbox()


def scene(
    drawings: Sequence[Sequence[PILImage.Image]],
    photographs: Sequence[np.ndarray],
    settings: SceneSettings,
    generator: np.random.Generator,
    turn: float = 0.0,
) -> Scene:
    """One scene; a later emoji lies on an earlier one, whose box and mask are what is left to see of it.

    Args:
        drawings: of every class.
        photographs: [height, width, 3] uint8 each.
        settings: sizes and numbers.
        generator: of all draws.
        turn: each emoji is turned by at most so many degrees to either side.
    """
    size = settings.size
    photo = photographs[generator.integers(len(photographs))]
    top, left = (int(generator.integers(side - size + 1)) for side in photo.shape[:2])
    canvas = PILImage.fromarray(photo[top : top + size, left : left + size]).convert("RGBA")
    owner, classes, points = np.zeros((size, size), np.int64), [], []
    for number in range(1, int(generator.integers(1, settings.most + 1)) + 1):
        kind = int(generator.integers(len(drawings)))
        drawing = drawings[kind][generator.integers(len(drawings[kind]))]
        pasted, points = placed(drawing, settings, generator, turn)
        canvas = PILImage.alpha_composite(canvas, pasted)
        owner[np.asarray(pasted.getchannel("A")) >= OPAQUE] = number
        classes.append(kind)
    visible = [number for number in range(1, len(classes) + 1) if (owner == number).any()]
    numbers = np.array([0, *(kind + 1 for kind in classes)], dtype=np.uint8)
    boxes = [box_of(owner == number) for number in visible]
    return Scene(canvas.convert("RGB"), numbers[owner], boxes, [classes[number - 1] for number in visible], points)


def placed(
    drawing: PILImage.Image, settings: SceneSettings, generator: np.random.Generator, turn: float
) -> tuple[PILImage.Image, list[list[float]]]:
    """The drawing alone on a transparent scene, and its `POINTS` there."""
    side = generator.uniform(settings.smallest, settings.largest) * settings.size
    scale = side / max(drawing.size)
    width, height = (max(1, round(scale * length)) for length in drawing.size)
    small = drawing.resize((width, height), PILImage.Resampling.BILINEAR)
    angle = float(generator.uniform(-turn, turn)) if turn else 0.0
    turned = small.rotate(angle, PILImage.Resampling.BILINEAR, expand=True) if turn else small
    # a turned drawing may be wider than the scene by its transparent corners
    left, top = (int(generator.integers(max(1, settings.size - length + 1))) for length in turned.size)
    alone = PILImage.new("RGBA", (settings.size, settings.size))
    alone.paste(turned, (left, top))
    middle = np.array([left + turned.width / 2, top + turned.height / 2])
    half = np.array([[0, -height], [width, 0], [0, height], [-width, 0], [0, 0]]) / 2
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    # pictures are turned counter-clockwise, and y points downwards
    there = middle + half @ np.array([[cosine, -sine], [sine, cosine]])
    inside = ((there >= 0) & (there < settings.size)).all(axis=1)
    return alone, [[float(x), float(y), float(seen)] for (x, y), seen in zip(there, inside, strict=True)]


def box_of(pixels: np.ndarray) -> list[float]:
    """[x, y, width, height] of the pixels [H, W] that are true."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return [float(left), float(top), float(columns[-1] + 1 - left), float(rows[-1] + 1 - top)]
