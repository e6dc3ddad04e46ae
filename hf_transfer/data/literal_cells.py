"""Cells of text that hold a list or a dictionary, as csv files write them: in the notation of JSON or of Python."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Sequence
from typing import Any

ONE_WORD = re.compile(r"\[[^\W\d]\w*\]")
DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)?")


def read_literal(cell: str) -> Any:
    """What a cell says; None where it is neither JSON nor Python.

    Raises:
        ValueError: a list whose items no comma separates, as numpy prints them.
    """
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        is_list = read is ast.literal_eval and isinstance(found, list)
        # Python joins strings that follow each other
        if is_list and count_strings(cell) > sum(isinstance(one, str) for one in found) and not nests(found):
            raise ValueError("holds a list without commas between its items: save the rows as json or parquet.")
        return found
    return None


def count_strings(cell: str) -> int:
    """How many strings a cell in the notation of Python writes."""
    kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(cell).readline)]
    return kinds.count(tokenize.STRING)


def nests(items: Sequence[Any]) -> bool:
    """Whether an item holds items itself."""
    return any(isinstance(one, list | dict | tuple | set) for one in items)


def read_lists(cells: Sequence[str]) -> list[list] | None:
    """The lists of a column whose cells all look like one; None for other columns.

    Raises:
        ValueError: a cell is no list all the same.
    """
    if not all(cell.startswith("[") and cell.endswith("]") for cell in cells):
        return None
    if all(ONE_WORD.fullmatch(cell) for cell in cells):
        return None  # names such as [INFO]
    found = []
    for cell in cells:
        items = read_literal(cell)
        if not isinstance(items, list):
            raise ValueError(f"holds {cell[:40]!r}, which is no list as JSON or Python write it.")
        found.append(items)
    flat = [one for items in found for one in items]
    if not all(isinstance(one, str) for one in flat) and any(isinstance(one, str) or one is None for one in flat):
        raise ValueError("holds lists of words and of numbers, or with empty items: write all alike.")
    return found


def have_decimal_commas(cells: Sequence[str]) -> bool:
    """Whether all cells are numbers of which some have a comma in place of the point."""
    return all(DECIMAL_COMMA.fullmatch(cell) for cell in cells) and any("," in cell for cell in cells)
