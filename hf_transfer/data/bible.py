"""Two translations of the Bible verse by verse, labelled by the kind of book: one task in two styles of English."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

VERSIONS = ("kjv", "asv")
GROUPS = {"law": 1, "history": 6, "poetry": 18, "prophets": 23, "gospels": 40, "letters": 45}
"""Kind of book -> the number of its first one; the Acts stand with the gospels, the Revelation with the letters."""
HELD_OUT_EVERY = 10


@cache
def bible(version: str) -> DatasetDict:
    """About 31,000 verses, columns `text` and `label` (the kind of book), of a translation in the public domain.

    Every tenth chapter goes to `test`, the one before it to `validation`, the rest to `train`; the translations share
    this split. Brackets around words that the translators added are left out.

    Args:
        version: "kjv" (King James, 1611) or "asv" (American Standard, 1901).

    Raises:
        ValueError: the package of the translation is not installed.
    """
    groups = list(GROUPS)
    splits: dict[str, dict[str, list]] = {name: {"text": [], "label": []} for name in ("train", "validation", "test")}
    chapters: dict[int, int] = {}
    for number, words in read_translation(version).items():
        chapter, book = number // 1000, number // 1_000_000
        index = chapters.setdefault(chapter, len(chapters)) % HELD_OUT_EVERY
        split = splits[{HELD_OUT_EVERY - 1: "test", HELD_OUT_EVERY - 2: "validation"}.get(index, "train")]
        # the ASV leaves verses out that its translators did not find in the oldest texts
        if words:
            split["text"].append(words)
            split["label"].append(max(index for index, name in enumerate(groups) if GROUPS[name] <= book))
    features = Features({"text": Value("string"), "label": ClassLabel(names=groups)})
    return DatasetDict({name: Dataset.from_dict(rows, features=features) for name, rows in splits.items()})


def read_translation(version: str) -> dict[int, str]:
    """The verses by number, book * 10^6 + chapter * 10^3 + verse.

    The package's module, one text and two tables of where each verse starts and ends in it, is read and not run: it
    would import a library that nothing here needs.
    """
    package = find_spec(f"pythonbible_{version}")
    if package is None:
        raise ValueError(
            f"the data set bible_{version} needs the package pythonbible-{version}: "
            'pip install "hf-transferability[data]".'
        )
    source = (Path(package.origin).parent / "plain_text_readers_bible.py").read_text(encoding="utf-8")
    _, text, tables = source.split('"""')
    indices = re.findall(r"^ +(\d{7,8}): (\d+),$", tables, re.MULTILINE)
    starts, ends = indices[: len(indices) // 2], dict(indices[len(indices) // 2 :])
    plain = {int(verse): text[int(start) : int(ends[verse])] for verse, start in starts}
    return {verse: re.sub(r"[\[\]]", "", words).strip() for verse, words in plain.items()}
