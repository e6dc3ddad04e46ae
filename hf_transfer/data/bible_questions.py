"""Questions about verses of the Bible, asked by rule, whose answers are names that stand in the verse.

    pattern                          question                   answer
    NAME said (answered, spake)      Who spoke?                 NAME
    said unto NAME                   Who was spoken to?         NAME
    NAME the son of OTHER            Whose son was NAME?        OTHER
    NAME king of OTHER               Of what was NAME king?     OTHER
    went (came) to, into PLACE       Where did they go?         PLACE

Names and places are those of `hf_transfer.data.bible_names`. Where a pattern stands twice, the first place counts. A
context is three verses of a chapter. A share of the rows asks who spoke, or where they went, of a context without any
word of speech or of going, and has no answer.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np
from datasets import Dataset, DatasetDict, Features, Value

from hf_transfer.data.bible import HELD_OUT_EVERY, VERSIONS, read_translation
from hf_transfer.data.bible_names import names_of_both
from hf_transfer.data.questions import ANSWER_LISTS

NAME = r"([A-Z][a-z]+(?:-[A-Za-z]+)*)"
PATTERNS = {
    "Who spoke?": rf"\b{NAME} (?:said|answered|spake)\b",
    "Who was spoken to?": rf"\b(?:said|spake|answered) (?:un)?to {NAME}\b",
    "Whose son was {}?": rf"\b{NAME},? the son of {NAME}\b",
    "Of what was {} king?": rf"\b{NAME},? (?:the )?king of {NAME}\b",
    "Where did they go?": rf"\b(?:came|went|go|come|returned) (?:down |up |again )?(?:un|in)?to {NAME}\b",
}
"""Question -> pattern; the last group is the answer, a first of two is named in the question."""
PLACE_QUESTION = "Where did they go?"
SPEECH = r"\b(?:said|answered|spake|saith|saying|speak)\b"
LACKED = {
    "Who spoke?": SPEECH,
    "Who was spoken to?": SPEECH,
    PLACE_QUESTION: r"\b(?:came|went|go|come|goeth|cometh|returned)\b",
}
"""Question -> words that its contexts lack where it has no answer."""
SPLITS = ("train", "validation", "test")


@cache
def bible_questions(version: str = "kjv", unanswered: float = 0.25, seed: int = 0) -> DatasetDict:
    """Splits `train`, `validation` and `test` by chapters, columns `question`, `context` and `answers`.

    Args:
        version: "kjv" or "asv".
        unanswered: share of rows without an answer, beside those with one.
        seed: of the choice of these rows.

    Raises:
        ValueError: an unknown version, a share out of range, or the packages of the translations are not installed.
    """
    if version not in VERSIONS or not 0 <= unanswered < 1:
        raise ValueError(
            f"`version` should be one of {list(VERSIONS)} and `unanswered` from 0 to less than 1, got {version!r} and "
            f"{unanswered}."
        )
    names, generator = names_of_both(), np.random.default_rng(seed)
    rows: dict[str, list[dict]] = {name: [] for name in SPLITS}
    for split, context in contexts_of(version):
        asked = questions_about(context, names)
        rows[split] += [{"question": one, "context": context, "answers": answer} for one, answer in asked.items()]
        free = [one for one, words in LACKED.items() if not re.search(words, context)]
        if asked and free and generator.random() < unanswered / (1 - unanswered) * len(asked):
            question = free[generator.integers(len(free))]
            rows[split].append({"question": question, "context": context, "answers": {"text": [], "answer_start": []}})
    features = Features({"question": Value("string"), "context": Value("string"), "answers": ANSWER_LISTS})
    return DatasetDict({name: Dataset.from_list(found, features=features) for name, found in rows.items()})


def contexts_of(version: str) -> list[tuple[str, str]]:
    """Three verses of a chapter after the other, with the split of the chapter."""
    chapters: dict[int, list[str]] = {}
    for number, text in read_translation(version).items():
        chapters.setdefault(number // 1000, []).append(text)
    found = []
    for place, verses in enumerate(chapters.values()):
        split = {HELD_OUT_EVERY - 1: "test", HELD_OUT_EVERY - 2: "validation"}.get(place % HELD_OUT_EVERY, "train")
        found += [(split, " ".join(filter(None, verses[first : first + 3]))) for first in range(0, len(verses), 3)]
    return found


def questions_about(context: str, names: dict[str, str]) -> dict[str, dict[str, list]]:
    """Every question that a context answers, with its answer as SQuAD writes it.

    Args:
        context: some verses.
        names: kind, PERSON or PLACE, of every name.
    """
    asked: dict[str, dict[str, list]] = {}
    for question, pattern in PATTERNS.items():
        for found in re.finditer(pattern, context):
            *subjects, answer = found.groups()
            kind = names.get(answer)
            if kind is None or (question == PLACE_QUESTION and kind != "PLACE"):
                continue
            start = found.start(len(found.groups()))
            asked.setdefault(question.format(*subjects), {"text": [answer], "answer_start": [start]})
    return asked
