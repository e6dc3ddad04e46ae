"""Finished runs in one table: seeds are grouped, settings are told apart, other folders are refused."""

from __future__ import annotations

import csv
import json
import shutil
import statistics
from pathlib import Path

import pytest

from hf_transfer.hub import DatasetFact, MethodFact, RunFacts, write_card
from hf_transfer.runs.comparison import as_csv, as_json_rows, as_markdown, find_runs, rows_of, table_of


def save(folder: Path, accuracy: float, seed: int, rate: float = 1e-3, methods: tuple = (), **results) -> Path:
    folder = folder / "model"
    folder.mkdir(parents=True)
    settings = {"learning_rate": rate, "seed": seed, "training_seconds": 10.0 + seed, "num_processes": 1}
    facts = RunFacts(
        "m", "image-classification", "AutoModel", methods=methods, hyper_parameters=settings, base_model="lab/base",
        datasets=[DatasetFact("rows.csv", "training", 10)],
    )  # fmt: skip
    write_card(folder, facts)
    (folder / "results.json").write_text(json.dumps({"accuracy": accuracy, **results}))
    return folder.parent


@pytest.fixture
def runs(tmp_path):
    cdan = (MethodFact("CDAN", "1705.10667", {"weight": 0.1, "seed": 7}),)
    for seed, accuracy in enumerate((0.9, 0.8, 0.85)):
        save(tmp_path / f"cdan-{seed}", accuracy, seed, methods=cdan, warnings=["text"], kept="adapted")
    save(tmp_path / "plain", 0.7, 0)
    save(tmp_path / "fast", 0.95, 0, rate=1e-2)
    return tmp_path


def test_runs_that_differ_in_their_seed_are_one_row_with_the_sample_deviation(runs):
    rows = rows_of(find_runs([runs]))
    (cdan,) = [row for row in rows if row.name.startswith("CDAN")]
    assert [run.seed for run in cdan.runs] == [0, 1, 2]
    assert cdan.means["accuracy"] == pytest.approx(0.85)
    assert cdan.deviations["accuracy"] == pytest.approx(statistics.stdev([0.9, 0.8, 0.85]))
    assert cdan.means["training_seconds"] == pytest.approx(11.0)
    assert "warnings" not in cdan.means and "kept" not in cdan.means


def test_a_copy_of_a_run_is_no_further_run(runs):
    shutil.copytree(runs / "cdan-1", runs / "chosen")
    save(runs / "other", 0.8, 1, methods=(MethodFact("CDAN", "1705.10667", {"weight": 0.2}),))
    found = find_runs([runs])
    assert len(found) == 6 and sum(run.seed == 1 for run in found) == 2
    assert len(find_runs([runs / "chosen"])) == 1


def test_rows_say_in_what_they_differ_and_are_sorted(runs):
    rows = rows_of(find_runs([runs]), best="accuracy")
    names = [row.name for row in rows]
    assert names == [
        "fine-tuning, learning_rate=0.01",
        "CDAN, learning_rate=0.001",
        "fine-tuning, learning_rate=0.001",
    ]
    assert rows[0].deviations == {}


def test_the_table_in_all_formats(runs):
    rows = rows_of(find_runs([runs]))
    columns, cells = table_of(rows)
    assert columns == ["run", "seeds", "accuracy", "training_seconds"]
    assert ["CDAN, learning_rate=0.001", "0, 1, 2", "0.8500 ± 0.0500", "11.0000 ± 1.0000"] in cells
    assert "| CDAN, learning_rate=0.001 | 0, 1, 2 | 0.8500 ± 0.0500 |" in as_markdown(rows)
    (line,) = [line for line in csv.DictReader(as_csv(rows).splitlines()) if line["run"].startswith("CDAN")]
    assert float(line["accuracy"]) == pytest.approx(0.85) and float(line["accuracy_sd"]) == pytest.approx(0.05)
    (row,) = [one for one in as_json_rows(rows) if one["name"].startswith("CDAN")]
    assert row["values"]["accuracy"] == [0.9, 0.8, 0.85] and row["settings"]["training"] == "rows.csv"


def test_a_run_named_twice_counts_once(runs):
    assert len(find_runs([runs, runs / "plain", runs / "plain" / "model"])) == 5


def test_a_folder_of_an_earlier_version_is_a_row_of_its_own(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "results.json").write_text('{"accuracy": 0.5, "loss": NaN}')
    (row,) = rows_of(find_runs([tmp_path]))
    assert row.name == str(tmp_path / "old") and row.means == {"accuracy": 0.5}
    assert table_of([row])[1][0][1] == "?"


def test_what_is_refused(runs, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder `nowhere`"):
        find_runs(["nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no finished run"):
        find_runs([tmp_path / "empty"])
    with pytest.raises(ValueError, match=r"no run has the metric `f1`; measured: \['accuracy'"):
        rows_of(find_runs([runs]), best="f1")
    (runs / "plain" / "model" / "card.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read"):
        find_runs([runs])
