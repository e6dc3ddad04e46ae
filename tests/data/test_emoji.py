"""No test fetches anything: the packages are made here."""

import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest
from huggingface_hub import constants
from PIL import Image

from hf_transfer.data import emoji as module
from hf_transfer.data.bundled import load, load_splits
from hf_transfer.data.emoji import emoji

CATEGORIES = ["Food & Drink", "Flags", "Component"]


def make_package(folder: Path, vendor: str = "google", lacking: int | None = None) -> Path:
    """Twelve emoji, of which two are components; the table is not in their usual order."""
    pictures = folder / "img" / vendor / "64"
    pictures.mkdir(parents=True)
    table = []
    for place in range(12):
        category = CATEGORIES[2 if place in (3, 7) else place % 2]
        entry = {"name": f"THING {place}", "image": f"{place}.png", "category": category, "sort_order": place}
        table.append({**entry, "subcategory": f"kind-{place % 4}", f"has_img_{vendor}": place != lacking})
        if place != lacking:
            Image.new("RGBA", (64, 64), (20 * place, 0, 0, 128)).save(pictures / f"{place}.png")
    (folder / "emoji.json").write_text(json.dumps(table[::-1]))
    return folder


def test_pictures_names_and_categories_of_a_folder(tmp_path):
    splits = load_splits("emoji", options={"folder": str(make_package(tmp_path))})
    # without the components 3 and 7 every fifth is held out
    assert splits["test"]["caption"][:] == ["thing 5", "thing 11"]
    assert splits["train"]["caption"][:] == [f"thing {place}" for place in (0, 1, 2, 4, 6, 8, 9, 10)]
    assert splits["train"].features["label"].names == ["Flags", "Food & Drink"]
    assert splits["test"]["label"][:] == [0, 0]
    picture = splits["test"][1]["image"]
    assert picture.mode == "RGBA" and picture.getpixel((0, 0)) == (220, 0, 0, 128)


def test_subcategories(tmp_path):
    rows = load("emoji", options={"folder": str(make_package(tmp_path)), "label": "subcategory"})
    assert rows.features["label"].names == ["kind-0", "kind-1", "kind-2", "kind-3"]


def test_what_one_vendor_lacks_moves_no_other_emoji(tmp_path):
    splits = emoji("apple", folder=str(make_package(tmp_path, "apple", lacking=0)))
    assert splits["test"]["caption"][:] == ["thing 5", "thing 11"] and len(splits["train"]) == 7


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    make_package(tmp_path)
    (tmp_path / "img" / "google" / "64" / "2.png").unlink()
    with pytest.raises(ValueError, match=r"lacks the pictures of \['THING 2'\] \(1 in all\)"):
        emoji(folder=str(tmp_path))
    with pytest.raises(ValueError, match="`folder` should hold emoji.json and img/twitter/64"):
        emoji("twitter", folder=str(tmp_path))
    with pytest.raises(ValueError, match=r"`label` should be one of \['category', 'subcategory'\], got 'name'"):
        emoji(label="name", folder=str(tmp_path))
    with pytest.raises(ValueError, match="`vendor` should be one of .*, or come with a `folder`, got 'apple'"):
        emoji("apple")


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A program of that name which hands out a package that was made here, and counts how often."""
    source = make_package(tmp_path / "made" / "package")
    (source / "img" / "google" / "sheets").mkdir()
    (source / "img" / "google" / "sheets" / "16.png").write_bytes(b"large")
    archive = tmp_path / "emoji.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, "package")
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncp {archive} ./x.tgz\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(module.SHA256, "google", hashlib.sha256(archive.read_bytes()).hexdigest())
    return tmp_path


@pytest.mark.parametrize("python", ["3.11.2", "3.11.4"])
def test_a_package_is_fetched_once_and_only_its_pictures_are_kept(npm, monkeypatch, python):
    if python == "3.11.2":
        monkeypatch.delattr("tarfile.data_filter", raising=False)
    first, again = load("emoji"), load("emoji")
    assert first["caption"][:] == again["caption"][:] and len(first) == 8
    assert (npm / "calls").read_text() == "pack emoji-datasource-google@16.0.0 --silent\n"
    (kept,) = (npm / "home" / "hf_transfer").iterdir()
    assert kept.name == "emoji-datasource-google@16.0.0"
    assert not (kept / "img" / "google" / "sheets").exists() and len(list(kept.rglob("*.png"))) == 12


def test_another_package_than_expected_is_not_used(npm, monkeypatch):
    monkeypatch.setitem(module.SHA256, "google", "0" * 64)
    with pytest.raises(ValueError, match="npm gave another emoji-datasource-google@16.0.0 than expected"):
        load("emoji")
    assert not list((npm / "home" / "hf_transfer").iterdir())


def test_without_npm_or_with_one_that_fails_it_is_said_what_to_do(npm, monkeypatch):
    (npm / "bin" / "npm").write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    with pytest.raises(ValueError, match=r"npm could not fetch .* \(no network\): unpack it from elsewhere"):
        load("emoji")
    monkeypatch.setenv("PATH", str(npm / "nothing"))
    with pytest.raises(ValueError, match="the data set emoji needs npm once, for emoji-datasource-google@16.0.0"):
        load("emoji")
