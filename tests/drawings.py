"""A stand-in for the emoji packages of npm: real picture files of simple shapes, drawn by each vendor otherwise."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw

CATEGORIES = ("Smileys & Emotion", "Flags")
COLOURS = {"google": ((250, 200, 30), (200, 30, 30)), "twitter": ((120, 220, 250), (30, 140, 60))}
EACH = 10


def make_package(folder: Path, vendor: str = "google") -> Path:
    """Ten discs with an eye and ten boxes; every fifth is held out by `hf_transfer.data.emoji`."""
    pictures = folder / "img" / vendor / "64"
    pictures.mkdir(parents=True, exist_ok=True)
    table = []
    for place in range(2 * EACH):
        kind = place % 2
        picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
        draw = ImageDraw.Draw(picture)
        shade = tuple(max(0, value - 4 * place) for value in COLOURS[vendor][kind])
        if kind == 0:
            draw.ellipse((4, 4, 59, 59), fill=(*shade, 255))
            draw.ellipse((26, 8, 38, 20), fill=(0, 0, 0, 255))  # an eye, which says where the top is
        else:
            draw.rectangle((2, 14, 61, 49), fill=(*shade, 255))
        picture.save(pictures / f"{place}.png")
        entry = {"name": f"THING {place}", "image": f"{place}.png", "category": CATEGORIES[kind], "sort_order": place}
        table.append({**entry, "subcategory": "any", f"has_img_{vendor}": True})
    (folder / "emoji.json").write_text(json.dumps(table))
    return folder


def scene_options(folder: Path, vendor: str = "google", **options) -> dict:
    """Keywords of `emoji_masks`, `emoji_boxes` and `emoji_points` for small scenes of the drawings in a folder."""
    place = folder / vendor
    if not place.is_dir():
        make_package(place, vendor)
    usual = {"vendor": vendor, "folder": str(place), "rows": 16, "test_rows": 8, "size": 32}
    return {**usual, "categories": list(CATEGORIES), **options}
