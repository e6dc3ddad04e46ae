from itertools import pairwise

import numpy as np
import pytest
import torch

from hf_transfer.data.masked_steps import MaskedStepsCollator, hidden_spans
from hf_transfer.data.visits import VISIT_COLUMN, Visit

ROWS = [{"past_values": np.random.default_rng(length).normal(size=(length, 2))} for length in (9, 30)]


def spans_of(hidden: np.ndarray) -> list[int]:
    """Lengths of the spans that neither begin nor end the row."""
    edges = np.flatnonzero(np.diff(hidden.astype(int)))
    return [int(b - a) for a, b in pairwise(edges) if hidden[a + 1]]


def test_share_and_length_of_the_spans_are_those_asked_for():
    generator = np.random.default_rng(0)
    rows = [hidden_spans(400, 0.2, 4.0, 16.0, generator) for _ in range(200)]
    assert np.mean(rows) == pytest.approx(0.2, abs=0.01)
    assert np.mean([length for row in rows for length in spans_of(row)]) == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_short_rows_hide_a_step_and_show_one(steps):
    generator = np.random.default_rng(0)
    rows = [hidden_spans(steps, 0.5, 3.0, 3.0, generator) for _ in range(200)]
    assert all(row.any() for row in rows)
    assert all(not row.all() for row in rows) == (steps > 1)


def test_a_batch_is_padded_and_depends_on_row_and_epoch_alone():
    collator = MaskedStepsCollator().seeded(3)
    batch = collator(ROWS)
    assert batch["past_values"].shape == (2, 30, 2) and batch["hidden_steps"].shape == (2, 30)
    assert batch["hidden_steps"][0, 9:].sum() == 0 and batch["attention_mask"].sum(1).tolist() == [9, 30]
    assert torch.equal(collator(ROWS[1:])["hidden_steps"][0], batch["hidden_steps"][1])
    visited = [[{**row, VISIT_COLUMN: Visit(place, epoch, 0)} for place, row in enumerate(ROWS)] for epoch in (0, 1)]
    first, second = (collator(rows)["hidden_steps"] for rows in visited)
    assert torch.equal(first, collator(visited[0])["hidden_steps"]) and not torch.equal(first, second)
    assert not torch.equal(MaskedStepsCollator().seeded(4)(ROWS)["hidden_steps"], batch["hidden_steps"])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"share": 0.0}, "`share` should be in"),
        ({"share": 1.0}, "`share` should be in"),
        ({"span": 0.5}, "`span` should be at least 1"),
        ({"share": 0.9, "span": 2.0}, "leaves 0.22 steps between two spans"),
    ],
)
def test_an_invalid_keyword_raises(keywords, message):
    with pytest.raises(ValueError, match=message):
        MaskedStepsCollator(**keywords)
