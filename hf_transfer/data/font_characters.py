"""Characters of many alphabets in many fonts: the twelve DejaVu fonts that matplotlib comes with, as drawers.

A class is a character, an alphabet a block of Unicode. Every picture is 28 pixels, white on black, and slightly
turned, shifted and scaled by a random generator of its class, so that the fonts of a character are less alike.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from datasets import Dataset, DatasetDict
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

ALPHABETS = {
    "Latin": (0x41, 0x180),
    "Greek": (0x370, 0x400),
    "Cyrillic": (0x400, 0x530),
    "Armenian": (0x530, 0x590),
    "Georgian": (0x10A0, 0x1100),
}
"""Name -> first code point, and the one after the last."""
SIZE, LETTERS, DRAWERS = 28, 20, 8
TURN, SHIFT, SCALES = 15.0, 2.0, (0.8, 1.1)
TRAIN, TEST = ("Latin", "Greek", "Cyrillic"), ("Armenian", "Georgian")


def fonts() -> list[Path]:
    """The files of the twelve styles that draw letters."""
    every = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVuS*.ttf"))
    return [file for file in every if "Display" not in file.name]


@cache
def drawn_by() -> dict[int, list[int]]:
    """Code point -> places of the fonts that have it, of the letters that enough fonts have."""
    charmaps = [FT2Font(str(file)).get_charmap() for file in fonts()]
    letters = [
        point
        for first, end in ALPHABETS.values()
        for point in range(first, end)
        if unicodedata.category(chr(point)).startswith("L")
    ]
    every = {point: [place for place, chars in enumerate(charmaps) if point in chars] for point in letters}
    return {point: places for point, places in every.items() if len(places) >= DRAWERS}


def picture(point: int, font: ImageFont.FreeTypeFont, generator: np.random.Generator) -> Image.Image:
    """One character in the middle of a picture, slightly turned, shifted and scaled."""
    canvas = Image.new("L", (2 * SIZE, 2 * SIZE))
    ImageDraw.Draw(canvas).text((SIZE, SIZE), chr(point), fill=255, font=font, anchor="mm")
    canvas = canvas.rotate(generator.uniform(-TURN, TURN), Image.Resampling.BILINEAR)
    half = SIZE / 2 / generator.uniform(*SCALES)
    across, down = SIZE + generator.uniform(-SHIFT, SHIFT, 2)
    box = (across - half, down - half, across + half, down + half)
    return canvas.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box)


def font_characters(train: Sequence[str] = TRAIN, test: Sequence[str] = TEST) -> DatasetDict:
    """Pictures of characters in twelve fonts, for learning from few examples: 573 classes of 8 to 12 rows, and 160 of
    other alphabets for testing.

    After Omniglot (Lake et al. 2015, https://doi.org/10.1126/science.aab3050), whose characters are written by hand.

    Args:
        train: alphabets of the split `train`, keys of `ALPHABETS`.
        test: of the split `test`.

    Raises:
        ValueError: there is no such alphabet.
    """
    for alphabet in (*train, *test):
        if alphabet not in ALPHABETS:
            raise ValueError(f"there is no alphabet `{alphabet}`, accepted: {list(ALPHABETS)}.")
    return DatasetDict(train=of_alphabets(train), test=of_alphabets(test))


def of_alphabets(alphabets: Sequence[str]) -> Dataset:
    """Pictures `image` and classes `label` of all letters of some alphabets."""
    loaded = [ImageFont.truetype(str(file), LETTERS) for file in fonts()]
    images, labels = [], []
    for alphabet in alphabets:
        first, end = ALPHABETS[alphabet]
        for point, places in drawn_by().items():
            if first <= point < end:
                generator = np.random.default_rng(point)
                images += [picture(point, loaded[place], generator) for place in places]
                labels += [f"{alphabet} {point:x}"] * len(places)
    return Dataset.from_dict({"image": images, "label": labels}).class_encode_column("label")
