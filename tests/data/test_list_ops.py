import numpy as np
import pytest

from hf_transfer.data.bundled import load
from hf_transfer.data.list_ops import TOKENS, evaluate_expression, expression, list_ops, longest_expression

SMALL = {"min_length": 10, "max_length": 60, "train_rows": 60, "test_rows": 20, "validation_rows": 10}


def value_of(words: list[str]) -> int:
    """The value by recursion over the written words, which are eaten from the front."""
    word = words.pop(0)
    if word.isdigit():
        return int(word)
    values = []
    while words[0] != "]":
        values.append(value_of(words))
    words.pop(0)
    fold = {"[MIN": min, "[MAX": max, "[MED": lambda v: int(np.median(v)), "[SM": lambda v: sum(v) % 10}
    return fold[word](values)


def depth_of(words: list[str]) -> int:
    deepest = depth = 0
    for word in words:
        depth += word.startswith("[")
        deepest = max(deepest, depth + word.isdigit())
        depth -= word == "]"
    assert depth == 0
    return deepest


def arguments_of(words: list[str]) -> list[int]:
    """How many arguments each operator has."""
    counts, waiting = [], [0]
    for word in words:
        if word == "]":
            counts.append(waiting.pop())
        else:
            waiting[-1] += 1
            if word.startswith("["):
                waiting.append(0)
    assert waiting == [1]
    return counts


def test_a_known_expression():
    words = ["[MAX", "2", "9", "[MIN", "4", "7", "]", "0", "[MED", "1", "4", "]", "[SM", "9", "9", "9", "]", "]"]
    assert evaluate_expression([TOKENS.index(word) for word in words]) == 9
    assert evaluate_expression([TOKENS.index(word) for word in ["[MED", "1", "4", "]"]]) == 2


@pytest.mark.parametrize("text", ["[MAX 2", "2 3", "]", "[MAX ]", "[PAD]"])
def test_half_an_expression_is_refused(text):
    with pytest.raises(ValueError, match="expression|does not belong"):
        evaluate_expression([TOKENS.index(word) for word in text.split()])


def test_rows_are_what_the_task_says():
    rows = list_ops(**SMALL, max_depth=5, max_arguments=4)
    assert [len(rows[split]) for split in ("train", "validation", "test")] == [60, 10, 20]
    for row in rows["train"]:
        words = [TOKENS[token] for token in row["input_ids"]]
        assert 10 <= len(words) <= 60 and depth_of(words) <= 5
        assert min(arguments_of(words)) >= 2 and max(arguments_of(words)) <= 4
        assert value_of(words) == row["label"]


def test_the_seed_decides_and_no_row_comes_twice():
    first, again, other = (list_ops.__wrapped__(**SMALL, seed=seed) for seed in (0, 0, 1))
    rows = [tuple(tokens) for split in first.values() for tokens in split["input_ids"]]
    assert len(set(rows)) == len(rows) == 90
    assert first["test"]["input_ids"][:] == again["test"]["input_ids"][:] != other["test"]["input_ids"][:]


def test_an_operator_is_drawn_with_probability_one_quarter():
    source = np.random.default_rng(0)
    drawn = [expression(source, 4, 4000, 3, 3) for _ in range(2000)]
    # the root has 2 or 3 arguments, each of which is an operator with probability 1/4
    counts = [sum(11 <= token < 15 for token in tokens) - 1 for tokens in drawn]
    assert np.mean(counts) == pytest.approx(2.5 / 4, abs=0.06)


def test_it_is_reached_by_name():
    rows = load("list_ops", "test", options=SMALL)
    assert len(rows) == 20 and rows.features["label"].num_classes == 10


@pytest.mark.parametrize(
    "options, message",
    [
        ({"min_length": 50, "max_length": 20}, "`min_length` <= `max_length`"),
        ({"max_depth": 1}, "`max_depth` and `max_arguments`"),
        ({"train_rows": 0}, "`train_rows`"),
        ({"max_depth": 2, "max_arguments": 3}, "no expression of `max_depth=2`"),
        ({"length": 3}, r"`list_ops` has no \['length'\], accepted: \['min_length'"),
    ],
)
def test_sizes_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        load("list_ops", options=options)


def test_the_longest_expression():
    assert longest_expression(2, 3) == 5 and longest_expression(3, 2) == 10
