"""Verses of the Bible with its names tagged by rule: persons and places, in two translations and two testaments.

A name is a word with a capital that both translations hardly ever write without. It is a place where more than a third
of its occurrences follow a word of place (in, from, at, land of ...), and otherwise a person or a people. Names that
follow each other are one entity. The rule sees single words of the whole text; a model sees sentences of a part of it.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from hf_transfer.data.bible import HELD_OUT_EVERY, VERSIONS, read_translation

TAGS = ("O", "B-PERSON", "I-PERSON", "B-PLACE", "I-PLACE")
BEFORE_PLACES = frozenset({"in", "from", "at", "into", "toward", "through"})
OF_PLACES = frozenset({"land", "city", "mount", "river", "wilderness", "king", "inhabitants", "cities", "valley"})
"""Words before `of` and the name of a place."""
PLACE_SHARE, SMALL_SHARE, LEAST_COUNT = 1 / 3, 0.01, 3
FIRST_OF_NEW = 40
"""The number of the first book of the New Testament."""
TESTAMENTS = ("old", "new")
WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*|['’]s\b|[^\sA-Za-z]")


@cache
def bible_names(version: str = "kjv", testament: str | None = None) -> DatasetDict:
    """Splits `train`, `validation` and `test` by chapters, columns `words` and `labels` (`TAGS`).

    Args:
        version: "kjv" or "asv"; the names are those of both.
        testament: "old" or "new", whose names and style differ; both when left out.

    Raises:
        ValueError: an unknown version or testament, or the packages of the translations are not installed.
    """
    if version not in VERSIONS or testament not in (None, *TESTAMENTS):
        raise ValueError(
            f"`version` should be one of {list(VERSIONS)} and `testament` one of {list(TESTAMENTS)}, got {version!r} "
            f"and {testament!r}."
        )
    names = names_of_both()
    splits: dict[str, dict[str, list]] = {
        name: {"words": [], "labels": []} for name in ("train", "validation", "test")
    }
    chapters: dict[int, int] = {}
    for number, text in read_translation(version).items():
        place = chapters.setdefault(number // 1000, len(chapters)) % HELD_OUT_EVERY
        is_new = number // 1_000_000 >= FIRST_OF_NEW
        words = WORD.findall(text)
        if not words or testament not in (None, TESTAMENTS[is_new]):
            continue
        split = splits[{HELD_OUT_EVERY - 1: "test", HELD_OUT_EVERY - 2: "validation"}.get(place, "train")]
        split["words"].append(words)
        split["labels"].append(tags_of(words, names))
    features = Features({"words": List(Value("string")), "labels": List(ClassLabel(names=list(TAGS)))})
    return DatasetDict({name: Dataset.from_dict(rows, features=features) for name, rows in splits.items()})


@cache
def names_of_both() -> dict[str, str]:
    """Every name of the translations with its kind, PERSON or PLACE."""
    texts = [WORD.findall(text) for version in VERSIONS for text in read_translation(version).values()]
    counts = Counter(word for words in texts for word in words)
    capital = {word: count for word, count in counts.items() if word[0].isupper() and word[1:].islower()}
    known = {
        word for word, count in capital.items() if count >= LEAST_COUNT and counts[word.lower()] <= SMALL_SHARE * count
    }
    in_place: Counter[str] = Counter()
    for words in texts:
        for place, word in enumerate(words):
            in_place[word] += word in known and follows_place(words[max(0, place - 2) : place])
    return {word: "PLACE" if in_place[word] > PLACE_SHARE * capital[word] else "PERSON" for word in sorted(known)}


def follows_place(before: list[str]) -> bool:
    """Whether the one or two words before a name are those that stand before places."""
    last = [word.lower() for word in before]
    return bool(last) and (last[-1] in BEFORE_PLACES or (last[-1] == "of" and last[0] in OF_PLACES))


def tags_of(words: list[str], names: dict[str, str]) -> list[str]:
    """The tag of every word."""
    tags, previous = [], None
    for word in words:
        kind = names.get(word)
        tags.append("O" if kind is None else f"{'I' if kind == previous else 'B'}-{kind}")
        previous = kind
    return tags
