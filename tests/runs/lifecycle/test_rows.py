"""The rows of a plan: windows of a table are held out by time, and labels of parts of rows are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_from_disk

from hf_transfer.runs.lifecycle.plan import read_plan
from hf_transfer.runs.lifecycle.rows import prepare_rows, rows_arguments
from hf_transfer.runs.lifecycle.store import Store

WINDOWS = {"context_length": 8, "prediction_length": 4}


def prepared(folder: Path, **data) -> tuple[dict, dict]:
    """What is written of a plan's rows, and the arguments of a training on them."""
    plan = read_plan({"data": data, "candidates": ["any"], "publish": {"output_dir": str(folder / "out")}})
    facts = prepare_rows(plan, Store(folder / "out"))
    return facts, rows_arguments(plan, facts, "test", with_target=False)


def test_windows_of_a_table_are_held_out_by_time(tmp_path):
    Dataset.from_dict({"a": np.arange(60.0)}).to_csv(tmp_path / "steps.csv", index=False)
    facts, arguments = prepared(tmp_path, train=str(tmp_path / "steps.csv"), forecasting=WINDOWS)
    assert facts["kind"] == "regression" and arguments["forecasting"] == WINDOWS
    told = {role: load_from_disk(str(Path(facts["folder"]) / role))["labels"][:] for role in facts["rows"]}
    assert {role: len(rows) for role, rows in told.items()} == {"train": 25, "validation": 9, "test": 9}
    for earlier, later in (("train", "validation"), ("validation", "test")):
        assert np.max(told[earlier]) + 1 == np.min(told[later]), "no step is told in two of them, and none is left out"


@pytest.mark.parametrize(
    ("rows", "task"),
    [
        ({"tokens": ["a", "b"], "ner_tags": ["O", "B-PER"]}, "token-classification"),
        (
            {"question": "who?", "context": "it is me", "answers": {"text": ["me"], "answer_start": [6]}},
            "question-answering",
        ),
    ],
)
def test_labels_of_parts_of_rows_are_refused(tmp_path, rows, task):
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps(rows)] * 12))
    with pytest.raises(ValueError, match=f"a plan reads rows with one label each, and these are rows of {task}"):
        prepared(tmp_path, train=str(tmp_path / "rows.jsonl"))
