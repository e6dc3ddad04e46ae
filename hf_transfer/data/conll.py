"""Files of one word a line, its tag in the last column, and an empty line behind every sentence (CoNLL 2003).

    EU NNP B-NP B-ORG
    rejects VBZ B-VP O

    Peter NNP B-NP B-PER

In CoNLL-U files (suffix .conllu) the word is in the second column and the tag, a part of speech, in the fourth.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset

from hf_transfer.data.tables import check_encoding
from hf_transfer.data.tagged_words import PART

SUFFIXES = (".conll", ".conllu", ".iob", ".iob2", ".bio")
DOCUMENT_START = "-DOCSTART-"
WORD, TAG = 1, 3
"""Columns of CoNLL-U."""


def load_conll(path: Path) -> Dataset:
    """The sentences of a file: columns `words` and `labels`, lists of strings.

    Args:
        path: an existing file with one of `SUFFIXES`.

    Raises:
        ValueError: it is not UTF-8, has no words, or a line with fewer columns than it needs; the line is named.
    """
    lines = path.read_text(encoding=check_encoding(path)).split("\n")
    is_universal = path.suffix.lower() == ".conllu"
    sentences: list[tuple[list[str], list[str]]] = [([], [])]
    width = None
    for number, fields in _fields(lines, is_universal):
        if not fields:
            sentences.append(([], []))
            continue
        width = width or len(fields)
        if len(fields) != width or len(fields) < (TAG + 1 if is_universal else 2):
            raise ValueError(
                f"line {number} has {len(fields)} columns and the first one {width}: every line holds a word and its "
                "tag, and an empty line ends a sentence"
            )
        sentences[-1][0].append(fields[WORD if is_universal else 0])
        sentences[-1][1].append(fields[TAG if is_universal else -1])
    kept = [sentence for sentence in sentences if sentence[0]]
    if not kept:
        raise ValueError("it has no words")
    return Dataset.from_dict({"words": [words for words, _ in kept], "labels": [tags for _, tags in kept]})


def _fields(lines: list[str], is_universal: bool) -> Iterator[tuple[int, list[str]]]:
    """Number and columns of every line, none for the end of a sentence."""
    for number, line in enumerate(lines, 1):
        line = line.strip("\r\n ")
        if is_universal and line.startswith("#"):
            continue
        # Words may hold spaces where tabs separate the columns.
        fields = [part.strip() for part in line.split("\t")] if "\t" in line else PART.findall(line)
        if fields and fields[0] == DOCUMENT_START:
            fields = []
        if is_universal and fields and not fields[0].isdigit():
            continue  # several words written as one (1-2), and words that are not written (1.1)
        yield number, fields
