"""The journal of a ranking: whatever the rows, and wherever a kill cuts the file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hf_transfer.ranking import RankingRow, Score
from hf_transfer.ranking.journal import Journal
from tests.properties import drawn

FACTS = {"score": "logme", "dataset": "abc"}
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.builds(
    RankingRow,
    model=st.text(min_size=1, max_size=12),
    score=NUMBERS,
    standard_error=st.none() | NUMBERS,
    layer=st.integers(0, 30),
    layers=st.dictionaries(
        st.integers(0, 30), st.builds(Score, NUMBERS, NUMBERS, st.just((0.0, 1.0)), st.just({})), max_size=3
    ),
    notes=st.lists(st.text(max_size=20), max_size=2).map(tuple),
    revision=st.text(min_size=1, max_size=6),
)


@drawn
@given(st.lists(ROWS, max_size=4))
def test_what_was_added_is_found(rows):
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(folder, FACTS)
        for row in rows:
            journal.add(row)
        last = {(row.model, row.revision): row for row in rows}
        again = Journal(folder, FACTS)
        assert len(again.rows) == len(last)
        assert all(again.find(*key) == row for key, row in last.items())


@drawn
@given(st.lists(ROWS, min_size=1, max_size=3, unique_by=lambda row: (row.model, row.revision)), st.data())
def test_a_kill_loses_the_row_that_was_being_written_and_no_other(rows, data):
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(folder, FACTS)
        sizes = []
        for row in rows:
            journal.add(row)
            sizes.append(journal.path.stat().st_size)
        file = Path(folder) / "rows.jsonl"
        kept = data.draw(st.integers(0, sizes[-1]))
        file.write_bytes(file.read_bytes()[:kept])
        again = Journal(folder, FACTS)
        # a line is whole without the new line at its end
        whole = [row for row, size in zip(rows, sizes) if size - 1 <= kept]
        assert len(again.rows) == len(whole) and all(again.find(row.model, row.revision) == row for row in whole)
        again.add(rows[-1])
        assert Journal(folder, FACTS).find(rows[-1].model, rows[-1].revision) == rows[-1]
