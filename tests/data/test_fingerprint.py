"""A fingerprint is of the content alone."""

import pytest
from datasets import Dataset

from hf_transfer.data import fingerprint as module
from hf_transfer.data.fingerprint import fingerprint

ROWS = {"text": ["a", "b", "cc", "d"], "label": [0, 1, 0, 1], "inputs": [[1.0], [2.0, 3.0], [], [4.0]]}


def changed(**columns) -> Dataset:
    return Dataset.from_dict({**ROWS, **columns})


def test_it_does_not_depend_on_how_the_rows_came(tmp_path):
    rows = changed()
    changed(text=["x", "a", "b", "cc"]).to_csv(tmp_path / "other.csv")
    rows.save_to_disk(tmp_path / "saved")
    doubled = Dataset.from_dict({name: values * 2 for name, values in ROWS.items()})
    for same in (
        changed(),
        Dataset.load_from_disk(tmp_path / "saved"),
        rows.with_format("torch"),
        doubled.select(range(4, 8)),
        rows.select([3, 2, 1, 0]).select([3, 2, 1, 0]),
        rows.select_columns(["label", "inputs", "text"]).select_columns(["text", "label", "inputs"]),
    ):
        assert fingerprint(same) == fingerprint(rows)


@pytest.mark.parametrize(
    "other",
    [
        changed(text=["a", "b", "cc", "e"]),
        changed(text=["a", "bc", "c", "d"]),
        changed(label=[1, 1, 0, 1]),
        changed(inputs=[[1.0], [2.0], [3.0], [4.0]]),
        changed().select([1, 0, 2, 3]),
        changed().select(range(3)),
        changed().rename_column("text", "sentence"),
        changed().remove_columns("inputs"),
    ],
)
def test_any_other_content_is_told(other):
    assert fingerprint(other) != fingerprint(changed())


def test_of_many_rows_evenly_spaced_ones_are_read(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 4000)
    many = Dataset.from_dict({"value": range(10_000)})
    assert fingerprint(many) == fingerprint(Dataset.from_dict({"value": range(10_000)}))
    assert fingerprint(many) != fingerprint(Dataset.from_dict({"value": range(1, 10_001)}))
    assert fingerprint(many) != fingerprint(many.select(range(9_999)))
