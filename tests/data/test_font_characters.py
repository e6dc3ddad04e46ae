"""Characters of many fonts: the same each time, and no class of the training in the test."""

import numpy as np
import pytest

from hf_transfer.data import font_characters
from hf_transfer.data.bundled import load, load_splits


def test_alphabets_are_apart_and_pictures_the_same_each_time():
    few = {"train": ["Greek"], "test": ["Georgian"]}
    rows = load_splits("font_characters", options=few)
    names = {split: set(rows[split].features["label"].names) for split in rows}
    assert set(names) == {"train", "test"} and not names["train"] & names["test"]
    assert all(name.startswith("Greek ") for name in names["train"])
    counts = np.bincount(rows["train"]["label"])
    assert counts.min() >= font_characters.DRAWERS and counts.max() <= len(font_characters.fonts()) == 12
    first = np.asarray(rows["train"][0]["image"])
    assert first.shape == (28, 28) and first.max() > 128, "something is drawn"
    assert np.array_equal(first, np.asarray(load("font_characters", "train", options=few)[0]["image"]))


def test_fonts_differ():
    rows = load("font_characters", "train", options={"train": ["Greek"], "test": ["Greek"]})
    drawn = {np.asarray(row["image"]).tobytes() for row in rows.select(range(12))}
    assert len(drawn) == 12


def test_an_unknown_alphabet_is_refused():
    with pytest.raises(ValueError, match="there is no alphabet `Klingon`, accepted: .*Armenian"):
        load("font_characters", options={"train": ["Klingon"]})
