"""csv and tsv files, read so that every line is a row or an error says which is not.

Python's `csv` reads the file once to find its separator and its quoting and to count the rows; `datasets` then reads
it with these settings, and the counts have to agree.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict, load_dataset
from transformers.utils import logging

logger = logging.get_logger(__name__)

SEPARATORS = {".csv": (",", ";", "\t", "|"), ".tsv": ("\t", ",", ";", "|")}
"""The usual separator of a suffix first."""
LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True)
class Layout:
    """How a file separates its fields, whether quotation marks enclose them, its columns and number of rows."""

    separator: str
    quoted: bool
    columns: tuple[str, ...]
    rows: int


class BadLine(ValueError):
    """A line that does not have the fields of the header."""


def load_table(path: Path) -> DatasetDict:
    """The rows of a csv or tsv file as the split `train`.

    Empty cells are missing values; the words None, NA and null are words.

    Args:
        path: an existing file.

    Raises:
        ValueError: it is not UTF-8, has no rows, two columns of one name, a line with more or fewer fields than the
            header, or can be read with quotation marks and without, to different numbers of rows.
    """
    encoding = check_encoding(path)
    layout = find_layout(path, encoding)
    twice = [name for name, times in Counter(layout.columns).items() if times > 1]
    if twice:
        raise ValueError(f"the header names the columns {twice} more than once: give each a name of its own")
    if layout.separator != SEPARATORS[path.suffix.lower()][0]:
        logger.warning(f"`{path}` is read with the separator {layout.separator!r}.")
    loaded = load_dataset(
        "csv",
        data_files=str(path),
        sep=layout.separator,
        encoding=encoding,
        quoting=csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE,
        keep_default_na=False,
        na_values=[""],
    )
    if len(loaded["train"]) != layout.rows:
        raise ValueError(
            f"{len(loaded['train'])} rows were read and the file has {layout.rows}: save it as json or parquet"
        )
    return loaded


def check_encoding(path: Path) -> str:
    """The name of UTF-8 with or without a byte-order mark. Raises ValueError for anything else."""
    start = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                start = number
                line.decode("utf-8")
    except UnicodeDecodeError as error:
        with path.open("rb") as file:
            likely = "UTF-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "WINDOWS-1252"
        # `load` tells an error's cause in its place, and this one would not say the line.
        raise ValueError(
            f"line {start} is not UTF-8 text (byte {error.object[error.start]:#04x}): save the file as UTF-8, for "
            f"example by `iconv -f {likely} -t UTF-8 {path.name}`"
        ) from None
    with path.open("rb") as file:
        return "utf-8-sig" if file.read(3) == b"\xef\xbb\xbf" else "utf-8"


def find_layout(path: Path, encoding: str) -> Layout:
    """The first separator with which every line has the fields of the header, the suffix's usual one before others.

    Raises:
        ValueError: there is none, or it depends on the quotation marks how many rows there are.
    """
    separators = SEPARATORS[path.suffix.lower()]
    complaint = alone = None
    for separator in separators:
        try:
            layout = read_layout(path, encoding, separator)
        except BadLine as error:
            complaint = complaint or error
            continue
        if len(layout.columns) > 1:
            return layout
        alone = alone or (layout if separator == separators[0] else None)
    if alone is None:
        raise ValueError(str(complaint))
    return alone


def read_layout(path: Path, encoding: str, separator: str) -> Layout:
    """How the file reads with this separator.

    Raises:
        BadLine: a line does not have the fields of the header, with quotation marks or without.
        ValueError: it has them either way, and not as many rows.
    """
    try:
        quoted = count_rows(path, encoding, separator, quoted=True)
    except BadLine as error:
        try:
            # The quotation marks belong to the texts.
            return count_rows(path, encoding, separator, quoted=False)
        except BadLine:
            raise error from None
    try:
        plain = count_rows(path, encoding, separator, quoted=False)
    except BadLine:
        return quoted
    if plain.rows == quoted.rows:
        return quoted
    if path.suffix.lower() == ".tsv":
        return plain
    raise ValueError(
        f"it has {quoted.rows} rows where quotation marks enclose fields of several lines, and {plain.rows} where "
        "they are a part of the text: write a quotation mark inside a field twice and enclose the field in marks, or "
        "save the rows as json"
    )


def count_rows(path: Path, encoding: str, separator: str, quoted: bool) -> Layout:
    """The layout, every line of which has the fields of the header. Raises BadLine for one that has not."""
    csv.field_size_limit(LONGEST_FIELD)
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=separator, quoting=quoting, strict=True)
        header, rows = None, 0
        try:
            for fields in reader:
                if not fields:
                    continue
                if header is None:
                    header = fields
                elif len(fields) != len(header):
                    raise BadLine(
                        f"line {reader.line_num} has {len(fields)} fields separated by {separator!r}, and the header "
                        f"{len(header)} ({', '.join(header[:10])}): enclose a field that holds the separator in "
                        "quotation marks"
                    )
                else:
                    rows += 1
        except csv.Error as error:
            raise BadLine(f"line {reader.line_num}: {error}") from error
    if not rows:
        raise ValueError("it has no rows")
    return Layout(separator, quoted, tuple(header), rows)
