"""A packaged model has its short name in what `hf-transfer rank` prints, not the place where pip put it."""

from datasets import Dataset
from typer.testing import CliRunner

from hf_transfer.cli.app import app
from tests import tiny


def test_a_short_name_is_shown_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = {"text": [text for text, _ in tiny.SENTENCES], "label": [book for _, book in tiny.SENTENCES]}
    Dataset.from_dict(rows).to_csv("books.csv", index=False)
    shown = CliRunner().invoke(app, ["rank", "all-minilm", "--dataset", "books.csv", "--score", "logme"])
    assert shown.exit_code == 0, shown.output
    assert "│ all-minilm │" in shown.output and "--model all-minilm" in shown.output
    assert "site-packages" not in shown.output
