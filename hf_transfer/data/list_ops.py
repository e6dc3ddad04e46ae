"""ListOps: nested operations on digits, whose value (0 to 9) is the class.

    [MAX 2 9 [MIN 4 7 ] 0 ]  ->  9

Papers: Nangia and Bowman 2018, https://huggingface.co/papers/1804.06028; the long version of Tay et al., ICLR 2021,
https://huggingface.co/papers/2011.04006, whose generator draws a list with probability 1/4 and a digit otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

TOKENS = ("[PAD]", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
"""Token of each id; 0 is padding."""
ZERO, FIRST_OPERATOR, CLOSE = 1, 11, 15
OPERATORS = {
    11: min,
    12: max,
    13: lambda values: (sorted(values)[(len(values) - 1) // 2] + sorted(values)[len(values) // 2]) // 2,
    14: lambda values: sum(values) % 10,
}
"""Id of an operator -> its value for the values of its arguments; the median of an even number is cut to a digit."""
LIST_PROBABILITY = 0.25


@cache
def list_ops(
    min_length: int = 500,
    max_length: int = 2000,
    train_rows: int = 96000,
    test_rows: int = 2000,
    validation_rows: int = 2000,
    max_depth: int = 10,
    max_arguments: int = 10,
    seed: int = 0,
) -> DatasetDict:
    """Splits `train`, `validation` and `test`: `input_ids` (places in `TOKENS`) and `label`; no row comes twice.

    Args:
        min_length: fewest tokens of an expression; an operator with its bracket is one token, a closing bracket one.
        max_length: most tokens of an expression.
        train_rows: rows of each split; 96,000, 2,000 and 2,000 in the Long Range Arena.
        test_rows: see `train_rows`.
        validation_rows: see `train_rows`.
        max_depth: a digit at the greatest depth is at this one, the outermost operator at 1.
        max_arguments: an operator has 2 to so many.
        seed: the same seed gives the same rows.

    Raises:
        ValueError: sizes out of range.
    """
    if not 4 <= min_length <= max_length:
        raise ValueError(f"expected 4 <= `min_length` <= `max_length`, got {min_length} and {max_length}.")
    if max_depth < 2 or max_arguments < 2:
        raise ValueError(f"`max_depth` and `max_arguments` should be at least 2, got {max_depth} and {max_arguments}.")
    if min(train_rows, test_rows, validation_rows) < 1:
        raise ValueError("`train_rows`, `test_rows` and `validation_rows` should be at least 1.")
    if min_length > longest_expression(max_depth, max_arguments):
        raise ValueError(f"no expression of `max_depth={max_depth}` has `min_length={min_length}` tokens.")
    source = np.random.default_rng(seed)
    seen: set[bytes] = set()
    rows = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    splits = {}
    for split, count in rows.items():
        expressions = []
        while len(expressions) < count:
            tokens = expression(source, min_length, max_length, max_depth, max_arguments)
            if tokens is not None and tokens not in seen:
                seen.add(tokens)
                expressions.append(tokens)
        splits[split] = _dataset(expressions)
    return DatasetDict(splits)


def longest_expression(max_depth: int, max_arguments: int) -> int:
    """Tokens of the full tree, in which every operator has the most arguments."""
    tokens = 1
    for _ in range(max_depth - 1):
        tokens = 2 + max_arguments * tokens
    return tokens


def expression(
    source: np.random.Generator, min_length: int, max_length: int, max_depth: int, max_arguments: int
) -> bytes | None:
    """One random expression, an operator outermost, as a byte a token; None when its length is out of bounds.

    The tree is drawn level by level, so that a tree of another size is given up before any token is written.

    Args:
        source: draws everything.
        min_length: see `list_ops`, as all others.
        max_length: most tokens.
        max_depth: levels of the tree.
        max_arguments: of an operator.
    """
    levels = []  # of each level, which nodes are operators, and how many arguments these have
    nodes, length = 1, 0
    for depth in range(1, max_depth + 1):
        chosen = source.random(nodes) < LIST_PROBABILITY if 1 < depth < max_depth else np.full(nodes, depth == 1)
        arguments = source.integers(2, max_arguments + 1, chosen.sum())
        levels.append((chosen, arguments))
        length += nodes + len(arguments)
        nodes = int(arguments.sum())
        if length + nodes > max_length:
            return None
        if nodes == 0:
            break
    return _written(levels, source) if length >= min_length else None


def _written(levels: list[tuple[np.ndarray, np.ndarray]], source: np.random.Generator) -> bytes:
    """The tokens of a tree: sizes of its branches from the leaves up, then their places from the root down."""
    sizes: list[np.ndarray] = []
    for chosen, arguments in reversed(levels):
        size = np.ones(len(chosen), dtype=np.int64)
        if len(arguments):
            size[chosen] = 2 + np.add.reduceat(sizes[-1], np.cumsum(arguments) - arguments)
        sizes.append(size)
    tokens = np.empty(int(sizes[-1][0]), dtype=np.uint8)
    indices = np.zeros(1, dtype=np.int64)
    sizes.reverse()
    for depth, (chosen, arguments) in enumerate(levels):
        size = sizes[depth]
        tokens[indices[~chosen]] = ZERO + source.integers(0, 10, len(chosen) - len(arguments))
        tokens[indices[chosen]] = FIRST_OPERATOR + source.integers(0, len(OPERATORS), len(arguments))
        tokens[indices[chosen] + size[chosen] - 1] = CLOSE
        if len(arguments):
            below = sizes[depth + 1]
            before = np.cumsum(below) - below
            first = np.cumsum(arguments) - arguments
            indices = np.repeat(indices[chosen] + 1 - before[first], arguments) + before
    return tokens.tobytes()


def evaluate_expression(tokens: Sequence[int]) -> int:
    """The value of an expression, 0 to 9.

    Raises:
        ValueError: the tokens are no whole expression.
    """
    lists: list[tuple[int, list[int]]] = [(0, [])]
    for token in tokens:
        if token in OPERATORS:
            lists.append((token, []))
        elif token == CLOSE and len(lists) > 1 and lists[-1][1]:
            operator, values = lists.pop()
            lists[-1][1].append(OPERATORS[operator](values))
        elif ZERO <= token < FIRST_OPERATOR:
            lists[-1][1].append(token - ZERO)
        else:
            raise ValueError(f"token {token} does not belong here: {[TOKENS[index] for index in tokens][:20]}.")
    if len(lists) != 1 or len(lists[0][1]) != 1:
        raise ValueError(f"not one whole expression: {[TOKENS[index] for index in tokens][:20]}.")
    return lists[0][1][0]


def _dataset(expressions: list[bytes]) -> Dataset:
    features = Features({"input_ids": List(Value("uint8")), "label": ClassLabel(names=list("0123456789"))})
    rows = {
        "input_ids": [np.frombuffer(tokens, dtype=np.uint8) for tokens in expressions],
        "label": [evaluate_expression(tokens) for tokens in expressions],
    }
    return Dataset.from_dict(rows, features=features)
