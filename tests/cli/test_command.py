"""One dialect: YAML and flags mix, dashes and underscores are one, a mistake is told the nearest name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from hf_transfer.cli import app as cli
from hf_transfer.ranking import Ranking
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.report import print_confusion
from hf_transfer.runs.values import read_names


def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(here, run):
    Path("rank.yaml").write_text("models: [vit]\ndataset: digits\nmax_samples: 50\nscore: [h_score]\nlayers: last\n")
    assert run("rank", "rank.yaml", "--max-samples=40", "--output_dir", "r")[0] == 0
    ranking = Ranking.load("r")
    assert ranking.settings["dataset_rows"] == 40 and ranking.score == "h_score"
    assert [row.model for row in ranking.scored] == ["vit"]


def test_one_word_of_the_file_is_a_list_where_an_option_takes_several(here, run):
    Path("rank.yaml").write_text("models: vit\ndataset: digits\nscore: h_score\noutput_dir: r\n")
    assert run("rank", "rank.yaml")[0] == 0
    assert Ranking.load("r").score == "h_score"


def test_an_unknown_key_of_the_file_is_told_the_nearest(here, run):
    Path("rank.yaml").write_text("models: [vit]\ndataset: digits\nmax_sample: 50\n")
    code, _, error = run("rank", "rank.yaml")
    assert code == 2 and "has no `max_sample`" in error and "Did you mean `max_samples`?" in error
    code, _, error = run("adapt", "--model", "vit", "--dataset", "digits", "--lerning_rate", "1")
    assert code == 2 and "Did you mean `learning_rate`?" in error


def test_a_file_that_is_no_mapping_is_refused(here, run):
    Path("rank.yaml").write_text("- vit\n")
    code, _, error = run("rank", "rank.yaml")
    assert code == 2 and "should hold a mapping" in error


def test_text_columns_have_one_name_in_every_command(here, run):
    for words in (["--text_column", "text"], ["--text-columns", "[text]"], ["--text_columns=[text]"]):
        arguments = ["--model", "bert", "--dataset", "books.csv", "--report_to", "[]", "--use_cpu", *words]
        assert parse_arguments(arguments).data.text_columns == ["text"]
        assert run("predict", "bert", "books.csv", "--output", "a.csv", "--overwrite", *words)[0] == 0
    assert read_names(["a,b", "[c, d]"]) == ("a,b", "c", "d") and read_names(None) == ()
    with pytest.raises(ValueError, match="cannot be read as YAML"):
        read_names(["[a, b"])


def test_evaluate_gives_everything_as_json_and_as_a_file(here, run):
    code, out, _ = run("evaluate", "vit", "digits", "--json", "--output", "all.json", "--max-samples", "40")
    found = json.loads(out)
    assert code == 0 and found["rows"] == 40 and found["task"] == "image-classification"
    assert json.loads(Path("all.json").read_text()) == found
    assert sum(sum(row.values()) for row in found["confusion"].values()) == 40
    right = sum(row[name] for name, row in found["confusion"].items())
    assert right / 40 == pytest.approx(found["metrics"]["accuracy"])
    assert {name: sum(row.values()) for name, row in found["confusion"].items()} == {
        name: figures["rows"] for name, figures in found["per_class"].items()
    }
    assert run("evaluate", "vit", "digits", "--output", "all.json")[0] == 2


def test_evaluate_prints_tables_and_the_next_command(here, run):
    _, out, error = run("evaluate", "vit", "--dataset", "digits")
    assert set(json.loads(out)) == {"loss", "accuracy", "macro_f1"}
    assert "image-classification, 80 rows of digits" in error
    assert "precision" in error and "taken for" in error and "hf-transfer predict vit" in error


def test_of_a_confusion_that_does_not_fit_the_pairs_are_shown(capsys):
    names = [f"quite a long name {place}" for place in range(9)]
    counts = {name: {other: int(name == other) for other in names} for name in names}
    counts[names[2]][names[5]] = 4
    print_confusion(Console(stderr=True, width=80), counts)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].split() == ["class", "taken", "for", "rows"] and len(lines) == 2
    assert lines[1].split() == [*names[2].split(), *names[5].split(), "4"]


@pytest.mark.parametrize("words", [["vit"], ["vit", "digits", "--dataset", "digits"]])
def test_the_rows_are_given_once(here, run, words):
    code, _, error = run("evaluate", *words)
    assert code == 2 and "Usage:" in error and "Traceback" not in error


def test_predict_writes_tables_of_several_kinds_with_all_probabilities(here, run):
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        code, out, error = run(
            "predict", "vit", "digits", "--output", name, "--all-probabilities", "--max_samples", "7"
        )
        assert code == 0 and f"Saved 7 predictions to {name}." in out and "hf-transfer evaluate vit" in error
    rows = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert len(rows) == 7 and rows[0]["row"] < rows[-1]["row"] > 7, "numbers are those of the whole data set"
    for row in rows:
        shares = {name.removeprefix("probability of "): value for name, value in row.items() if " of " in name}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert shares[row["prediction"]] == max(shares.values()) == pytest.approx(row["probability"])
    assert not list(Path(".").glob(".a.*")), "nothing is left behind"
    code, _, error = run("predict", "vit", "digits", "--output", "a.pdf")
    assert code == 2 and "'.parquet'" in error
    counts = json.loads(run("predict", "vit", "digits", "--output", "b.csv", "--json")[1])
    assert counts["rows"] == 80 == sum(counts["predicted"].values())


def test_a_label_column_is_not_read_as_text(here, run):
    rows = Path("books.csv").read_text().replace("text,label", "text,book", 1)
    Path("renamed.csv").write_text(rows)
    assert run("predict", "bert", "renamed.csv", "--output", "a.csv", "--label-column", "book")[0] == 0
    assert Path("a.csv").read_text().splitlines()[0] == "row,text,prediction,probability"
    code, _, error = run("predict", "bert", "renamed.csv", "--output", "b.csv", "--label-column", "autor")
    assert code == 2 and "names `autor`" in error


def test_stopping_is_130_in_every_command(here, run, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_transfer.runs.evaluate.run_evaluation", interrupt)
    code, _, error = run("evaluate", "vit", "digits")
    assert code == 130 and error.rstrip().endswith("Stopped.")


def test_help_is_there_in_about_a_second(tmp_path):
    """Processor time, so that a busy machine does not count; nothing heavy is imported."""
    program = "import resource, sys; from hf_transfer.cli import main\n"
    program += "try: main()\nexcept SystemExit: pass\n"
    program += "heavy = {'torch', 'transformers', 'numpy', 'datasets', 'yaml'} & set(sys.modules)\n"
    program += "print(resource.getrusage(resource.RUSAGE_SELF).ru_utime, sorted(heavy), file=sys.stderr)"
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])}
    for words in (["--help"], ["adapt", "--help"], ["methods", "--help"]):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, env=environment, timeout=60
        )
        seconds, heavy = done.stderr.split(maxsplit=1)
        assert "Usage" in done.stdout and heavy.strip() == "[]", done.stderr
        assert float(seconds) < 1.5, f"{time.perf_counter() - started:.1f} s"
