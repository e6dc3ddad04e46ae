"""Tables with a column of numbers for every step, from files to predictions and a plan."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset

from hf_transfer.data.wide_tables import joined_columns, with_joined_series, with_series_to_rank
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.lifecycle.lifecycle import Lifecycle
from hf_transfer.runs.predict import predict_rows
from hf_transfer.runs.rank import run_ranking
from tests.runs.folders import QUICK

STEPS = [f"t{step}" for step in range(8)]
FLOWFORMER = {"model_type": "flowformer", "modality": "time_series", "hidden_size": 16, "num_hidden_layers": 1}
FLOWFORMER |= {"num_attention_heads": 2}


def waves(count: int = 24, **more) -> Dataset:
    rng = np.random.default_rng(0)
    places = np.arange(count) % 3
    values = np.sin(np.arange(8) / (1 + places[:, None])) + 0.1 * rng.normal(size=(count, 8))
    columns = {name: values[:, step] for step, name in enumerate(STEPS)}
    return Dataset.from_dict({**columns, "label": ["abc"[place] for place in places], **more})


@pytest.fixture
def wide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    waves().to_csv("wide.csv", index=False)
    waves(score=np.linspace(-1, 1, 24)).to_csv("scored.csv", index=False)
    return tmp_path


def adapted(dataset: str, *more: str) -> str:
    words = ["--architecture", json.dumps(FLOWFORMER)] if "--model" not in more else []
    words += ["--dataset", dataset, "--output_dir", "out", "--overwrite", *QUICK, *more]
    return str(run_adaptation(parse_arguments(words)).folder)


def test_columns_of_numbers_are_one_series_in_their_order(caplog):
    rows = with_joined_series(waves(), None, None, "training")
    assert np.allclose(np.array(rows["past_values"][:])[..., 0], np.array([waves()[name] for name in STEPS]).T)
    assert "reading the 8 columns of numbers, `t0` to `t7`, as one series" in caplog.text
    assert joined_columns(rows) == STEPS and rows["label"][:3] == ["a", "b", "c"]
    assert with_joined_series(rows, STEPS, None, "test") is rows, "what is joined is kept"
    named = with_joined_series(waves(score=[0.5] * 24), None, "score", "training")
    assert joined_columns(named) == STEPS and "score" in named.column_names
    some = with_joined_series(waves(), ["t3", "t1"], None, "training")
    assert np.allclose(some[0]["past_values"], [[waves()[0]["t3"]], [waves()[0]["t1"]]])


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (waves(), ["t0", "t9"], r"lacks the columns \['t9'\]"),
        (waves(), ["t0", "label"], "column `label` of the training dataset holds Value"),
        (waves().select_columns(["t0", "label"]), None, "no column `past_values` and no columns of numbers"),
        (waves(t8=[[1.0]] * 24), ["t0", "t8"], "column `t8` of the training dataset holds List"),
        (waves(t8=[None, *[1.0] * 23]), None, "column `t8` of the training dataset is empty in row 0"),
    ],
)
def test_other_tables_are_refused(rows, columns, message):
    with pytest.raises(ValueError, match=message):
        with_joined_series(rows, columns, None, "training")


def test_only_a_table_of_numbers_alone_is_ranked_as_series():
    assert with_series_to_rank(waves(), None).column_names == ["past_values", "label"]
    words = waves(text=["a"] * 24)
    assert with_series_to_rank(words, None) is words
    kinds = waves(kind=[0, 1] * 12).cast_column("kind", ClassLabel(names=["x", "y"]))
    assert with_series_to_rank(kinds, None) is kinds, "a class is no step"


def test_a_model_reads_other_tables_by_the_columns_of_its_training(wide):
    model = adapted("wide.csv", "--test_dataset", "scored.csv", "--max_steps", "20")
    told = json.loads(Path(model, "results.json").read_text())
    assert run_evaluation(model, "scored.csv")["accuracy"] == pytest.approx(told["accuracy"])
    found = predict_rows(model, "scored.csv").columns
    assert set(found) == {"row", "label", "prediction", "probability"} - {"label"}, "the score is no step"
    turned = waves().select_columns([*STEPS[::-1], "label"])
    turned.to_csv("turned.csv", index=False)
    assert predict_rows(model, "turned.csv").columns["probability"] == pytest.approx(found["probability"])
    waves().remove_columns("t2").to_csv("fewer.csv", index=False)
    with pytest.raises(ValueError, match=r"prediction \(`fewer.csv`\) dataset lacks the columns \['t2'\]"):
        predict_rows(model, "fewer.csv")


def test_so_does_an_adapter(wide):
    base = adapted("wide.csv", "--output_dir", "base")
    lora = adapted("wide.csv", "--model", base, "--peft", "{peft_type: LORA, target_modules: all-linear}")
    turned = waves(score=[0.0] * 24).select_columns(["score", *STEPS[::-1]])
    turned.to_csv("turned.csv", index=False)
    answers = predict_rows(lora, "wide.csv").columns
    assert predict_rows(lora, "turned.csv").columns["probability"] == pytest.approx(answers["probability"])


def test_a_table_is_ranked_and_goes_through_a_plan(wide):
    model = adapted("wide.csv")
    ranking = run_ranking([model], "wide.csv", score="logme", progress=False)
    assert np.isfinite(ranking.best.score)
    plan = {"data": {"train": "scored.csv", "target": "wide.csv", "label_column": "score"}, "rank": {"score": "logme"}}
    plan |= {"candidates": [model], "publish": {"output_dir": "plan"}}  # whose head is of classes
    outcome = Lifecycle({**plan, "training": {"max_steps": 2, "use_cpu": True}}, quiet=True).run()
    assert {entry.method for entry in outcome.entries if entry.stage == "domain"} == {"source_only", "dann"}
    assert predict_rows(str(outcome.folder), "wide.csv").rows == 24
    assert Path("plan/report.md").exists()


def test_values_far_from_0_and_1_are_told(wide, caplog):
    adapted("wide.csv")
    assert "and are read as they are" not in caplog.text
    Dataset.from_dict(
        {name: [900.0 + step, 905.0, 1000.0] for step, name in enumerate(STEPS)} | {"label": [0, 1, 0]}
    ).to_csv("large.csv", index=False)
    adapted("large.csv")
    assert "the series have a mean of 936 and a deviation of 45" in caplog.text


def test_a_stream_is_refused_with_what_to_do(wide):
    waves().to_json("wide.jsonl")
    with pytest.raises(ValueError, match="lists of numbers in a column `past_values`.* leave `streaming` out"):
        adapted("wide.jsonl", "--streaming", "true")


def test_a_column_that_another_task_names_is_refused(wide):
    with open("texts.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "label"], ["good", 1], ["bad", 0]])
    words = ["--model", "all-minilm", "--dataset", "texts.csv", "--series_columns", "[text]", "--output_dir", "out"]
    with pytest.raises(ValueError, match="`series_columns` = .* would be ignored"):
        run_adaptation(parse_arguments([*words, *QUICK]))
