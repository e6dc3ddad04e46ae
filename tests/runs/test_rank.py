import json
from pathlib import Path

import pytest
from datasets import Dataset

from hf_transfer.hub import retry
from hf_transfer.ranking import Ranking
from hf_transfer.runs.rank import run_ranking
from tests.runs.folders import save_books


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(retry, "sleep", lambda seconds: None)


@pytest.fixture
def loaded(monkeypatch):
    """Names of the models that were loaded so far."""
    from hf_transfer.ranking.scorer import ModelScorer

    names, rows = [], ModelScorer.rows

    def spy(self, name, fetched, with_baseline):
        names.append(name)
        return rows(self, name, fetched, with_baseline)

    monkeypatch.setattr(ModelScorer, "rows", spy)
    return names


def rank(*models, dataset="digits", **options):
    return run_ranking(models, dataset, progress=False, **options)


def test_files_of_names_and_names(here):
    Path("names.txt").write_text("vit  # ten classes\n\nflow\n")
    assert {row.model for row in rank("names.txt", "three", "vit").scored} == {"vit", "flow", "three"}


def test_an_interrupted_ranking_goes_on_when_told(here, loaded):
    first = rank("vit", "flow", output_dir=Path("r"))
    lines = (Path("r") / "rows.jsonl").read_text().split("\n\n")
    (Path("r") / "rows.jsonl").write_text(lines[0] + "\n" + lines[1][:40])
    (Path("r") / "ranking.json").unlink()
    with pytest.raises(FileExistsError, match="`r` holds a ranking: go on with --resume, start over with --overwrite"):
        rank("vit", "flow", output_dir=Path("r"))
    again = rank("vit", "flow", output_dir=Path("r"), resume=True)
    assert loaded == ["vit", "flow", "flow"]
    assert [(row.model, row.score) for row in again.rows] == [(row.model, row.score) for row in first.rows]
    assert Ranking.load("r").best.model == first.best.model


def test_overwriting_scores_again_and_a_late_mistake_destroys_nothing(here, loaded):
    rank("vit", output_dir=Path("r"))
    before = (Path("r") / "rows.jsonl").read_text()
    with pytest.raises(ValueError, match="`pooling`"):
        rank("vit", output_dir=Path("r"), overwrite=True, pooling="sum")
    assert (Path("r") / "rows.jsonl").read_text() == before
    rank("vit", output_dir=Path("r"), overwrite=True)
    assert loaded == ["vit", "vit"]
    rows = [json.loads(line) for line in (Path("r") / "rows.jsonl").read_text().splitlines() if line]
    assert [entry["row"]["model"] for entry in rows] == ["vit"]


def test_a_query_joins_the_names(here, hub, tmp_path):
    for name in ("vit", "flow"):
        hub.add_folder(f"lab/{name}", here / name, tags=("tiny", name))
    options = {"cache_dir": str(tmp_path / "cache"), "free_disk": True}
    ranking = rank("three", query={"author": "lab", "filter": ["tiny"]}, **options)
    assert {row.model for row in ranking.scored} == {"three", "lab/vit", "lab/flow"}
    assert not list((tmp_path / "cache").glob("models--*"))
    ranking = rank(query={"filter": ["tiny", "flow"]}, **options)
    assert [row.model for row in ranking.rows] == ["lab/flow"]
    with pytest.raises(ValueError, match=r"no model that matches \{'author': 'stranger'\}"):
        rank(query={"author": "stranger", "search": None}, **options)


def test_classes_that_are_words(here):
    save_books(here / "words.csv", words=True)
    assert rank("bert", dataset="words.csv").best.score == pytest.approx(rank("bert", dataset="books.csv").best.score)


def test_columns_with_other_names(here):
    Dataset.from_dict({"line": ["Emma", "Alice"] * 9, "note": ["x", "y"] * 9, "mood": [0, 1] * 9}).to_csv("own.csv")
    columns = {"label_column": "mood", "input_columns": ["line"]}
    assert rank("bert", dataset="own.csv", **columns).best.rows == 18


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"output_dir": Path("digits")}, FileExistsError, "`digits` is not empty and holds no ranking"),
        ({"output_dir": Path("digits"), "overwrite": True}, FileExistsError, "is not empty and holds no ranking"),
        ({"output_dir": Path("books.csv")}, OSError, r"books\.csv is a file"),
        ({"output_dir": Path("books.csv/r")}, PermissionError, "cannot be written"),
        ({"resume": True, "overwrite": True}, ValueError, "give one of them"),
        ({"dataset": "mood.csv"}, ValueError, "No label column"),
        ({"dataset": "none.csv"}, ValueError, r"cannot read `none\.csv`: it has no rows"),
        ({"score": "luck"}, ValueError, "`score` should be one of"),
        ({"batch_size": "many"}, ValueError, "`batch_size` should be"),
    ],
)
def test_mistakes_are_found_before_any_model_is_loaded(here, loaded, options, error, message):
    Path("mood.csv").write_text("text,mood\na,1\n")
    Path("none.csv").write_text("text,label\n")
    with pytest.raises(error, match=message):
        rank("vit", **options)
    assert loaded == []


def test_names_are_needed_and_readable(here):
    with pytest.raises(ValueError, match="no candidates"):
        rank()
    with pytest.raises(ValueError, match=r"`vit/model\.safetensors` is no text file"):
        rank("vit/model.safetensors")
