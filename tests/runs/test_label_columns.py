"""A table with a column for each label, through every command that reads labels."""

import json

import numpy as np
import pytest
from datasets import Dataset, load_from_disk
from typer.testing import CliRunner

from hf_transfer.cli.app import app
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.lifecycle.outputs import outputs_on
from hf_transfer.runs.lifecycle.plan import read_plan
from hf_transfer.runs.lifecycle.rows import prepare_rows
from hf_transfer.runs.lifecycle.store import Store
from hf_transfer.runs.predict import predict_rows
from tests import tiny
from tests.runs.folders import QUICK

COLUMNS = ["alice", "long"]
LORA = ["--peft", "{peft_type: LORA, target_modules: [query]}"]


@pytest.fixture
def table(here):
    """Sentences with two columns of 0 and 1, in an order that is not that of their names."""
    texts = [text for text, _ in tiny.SENTENCES]
    told = {"long": [int(len(text) > 40) for text in texts], "alice": [book == 1 for _, book in tiny.SENTENCES]}
    Dataset.from_dict({"text": texts, **told}).to_csv(here / "table.csv", index=False)
    return told


def adapted(here, *more):
    words = ["--model", "bert", "--dataset", "table.csv", "--label_column", "[alice, long]", "--output_dir", "out"]
    run_adaptation(parse_arguments([*words, *QUICK, *more]))
    return str(here / "out" / "model")


@pytest.mark.parametrize("more", [(), LORA])
def test_a_model_finds_the_columns_of_its_labels(here, table, more):
    model = adapted(here, *more, "--test_dataset", "table.csv")
    found = json.loads((here / "out" / "model" / "results.json").read_text())
    told = run_evaluation(model, "table.csv", label_column=COLUMNS)
    assert told == pytest.approx(run_evaluation(model, "table.csv"))
    assert told["macro_f1"] == pytest.approx(found["macro_f1"]) and told["loss"] == pytest.approx(found["loss"], 1e-4)
    written = predict_rows(model, "table.csv", label_column=COLUMNS).columns
    assert {"alice", "long"} <= set(written)
    right = [(np.array(written[name]) > 0.5) == np.array(table[name], bool) for name in COLUMNS]
    assert np.mean(np.all(right, 0)) == pytest.approx(told["exact_match"])


def test_commands_take_the_option_several_times(here, table):
    several = [word for name in COLUMNS for word in ("--label-column", name)]
    ranked = CliRunner().invoke(app, ["rank", "bert", "--dataset", "table.csv", "--score", "logme", *several])
    assert ranked.exit_code == 0, ranked.output
    assert "--label_column '[alice, long]'" in ranked.output, "the next command reads the same labels"
    model = adapted(here)
    shown = CliRunner().invoke(app, ["evaluate", model, "table.csv", *several])
    assert shown.exit_code == 0 and '"exact_match"' in shown.output


def test_a_task_with_labels_in_one_column_refuses_several(here, table):
    words = ["--model", "bert", "--task", "token-classification", "--dataset", "table.csv"]
    with pytest.raises(ValueError, match="token-classification reads its labels from one column"):
        run_adaptation(parse_arguments([*words, "--label_column", "[alice, long]", *QUICK]))
    assert parse_arguments([*words, "--label_column", "[alice]"]).data.label_column == "alice"


def test_a_stream_has_them_too(here, table):
    texts = [text for text, _ in tiny.SENTENCES]
    Dataset.from_dict({"text": texts, **table}).to_json("table.jsonl")
    words = ["--model", "bert", "--dataset", "table.jsonl", "--streaming", "true", "--test_dataset", "table.jsonl"]
    found = run_adaptation(parse_arguments([*words, "--label_column", "[alice, long]", "--output_dir", "out", *QUICK]))
    assert run_evaluation(str(found.folder), "table.jsonl")["macro_f1"] == pytest.approx(found["macro_f1"])


def test_a_plan_keeps_the_names_of_labels(here, table):
    data = {"train": "table.csv", "label_column": ["long", "alice"]}
    plan = read_plan({"data": data, "candidates": ["bert"], "publish": {"output_dir": "plan"}})
    facts = prepare_rows(plan, Store(here / "plan"))
    rows = load_from_disk(f"{facts['folder']}/test")
    assert facts["classes"] == ["long", "alice"] == list(rows.features["labels"].feature.names)
    model = adapted(here)  # whose outputs are in the other order
    outputs = outputs_on(model, rows, {"problem_type": facts["kind"]})
    by_text = dict(zip([text for text, _ in tiny.SENTENCES], zip(table["alice"], table["long"])))
    assert outputs.names == ["alice", "long"]
    assert outputs.labels.tolist() == [[float(one) for one in by_text[text]] for text in rows["text"]]
