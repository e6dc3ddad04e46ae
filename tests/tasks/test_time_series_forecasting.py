"""Forecasting from a table or windows to a saved model, by Flowformer and PatchTST, and across domains."""

import csv
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from transformers import PatchTSTForRegression

from hf_transfer.data.bundled import load_splits
from hf_transfer.data.forecasts import windows_of, with_flat_future
from hf_transfer.models.flowformer import FlowformerForTimeSeriesClassification
from hf_transfer.ranking import rank_models
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.predict import run_prediction
from tests.runs.folders import QUICK

FLOWFORMER = "{model_type: flowformer, modality: time_series, hidden_size: 16, num_hidden_layers: 1, "
FLOWFORMER += "num_attention_heads: 2, intermediate_size: 16}"
PATCHTST = "{model_type: patchtst, patch_length: 4, patch_stride: 4, d_model: 16, num_hidden_layers: 1, "
PATCHTST += "num_attention_heads: 2, ffn_dim: 16}"
METRICS = {"loss", "mean_squared_error", "mean_absolute_error", "mean_absolute_scaled_error"}
FORECASTING = ["--task", "time-series-forecasting", "--output_dir", "out"]


def table(steps: int = 40, phase: float = 0.0) -> Dataset:
    time = np.arange(steps) / 5 + phase
    return Dataset.from_dict({"day": [f"d{n}" for n in range(steps)], "a": np.sin(time), "b": 2 * np.cos(time)})


def windows(count: int = 16, phase: float = 0.0) -> Dataset:
    made = windows_of(table(count + 11, phase), {"context_length": 8, "prediction_length": 4}, "given")
    future = [np.reshape(row, (4, 2)).tolist() for row in made["labels"]]
    return made.remove_columns("labels").add_column("future_values", future)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table().to_csv("steps.csv", index=False)
    table(phase=1.0).to_csv("later.csv", index=False)
    windows().to_parquet("windows.parquet")
    windows(phase=2.0).to_parquet("others.parquet")
    return tmp_path


def adapt(*argv: str) -> dict:
    return run_adaptation(parse_arguments([*QUICK, *FORECASTING, *argv]))


@pytest.mark.parametrize(
    ("architecture", "saved"), [(FLOWFORMER, FlowformerForTimeSeriesClassification), (PATCHTST, PatchTSTForRegression)]
)
def test_from_windows_to_a_saved_model(place, architecture, saved):
    data = ["--dataset", "windows.parquet", "--test_dataset", "others.parquet"]
    assert adapt("--architecture", architecture, *data).keys() == METRICS
    model, report = saved.from_pretrained("out/model", output_loading_info=True)
    assert not report["missing_keys"] and model.config.num_labels == 8
    options = {"task": "time-series-forecasting"}
    measured = run_evaluation("out/model", "windows.parquet", **options)
    assert measured.keys() == METRICS
    assert run_prediction("out/model", "windows.parquet", output=Path("out.csv"), **options) == 16
    with Path("out.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 16 * 8 and [(line["step"], line["channel"]) for line in lines[:3]] == [
        ("0", "0"),
        ("0", "1"),
        ("1", "0"),
    ]
    future = np.asarray(windows()["future_values"]).reshape(16, -1)
    errors = np.asarray([float(line["prediction"]) for line in lines]).reshape(16, -1) - future
    assert measured["mean_squared_error"] == pytest.approx(np.square(errors).mean(), rel=1e-4)


def test_a_saved_model_goes_on_with_domains_and_is_ranked(place):
    adapt("--architecture", PATCHTST, "--dataset", "windows.parquet")
    Path("out").rename("first")
    data = ["--dataset", "windows.parquet", "--target_dataset", "others.parquet", "--test_dataset", "others.parquet"]
    metrics = adapt("--model", "first/model", *data, "--objectives", "{dd: {}, coral: {}}")
    assert METRICS | {"dev"} <= metrics.keys()
    flat = with_flat_future(windows(), "given")
    assert np.isfinite(rank_models(["first/model"], flat, score="logme", progress=False).best.score)


def test_a_table_of_steps_is_cut_into_windows(place):
    settings = ["--forecasting", "{context_length: 8, prediction_length: 4, stride: 2}"]
    data = ["--dataset", "steps.csv", "--test_dataset", "later.csv"]
    assert adapt("--architecture", FLOWFORMER, *data, *settings).keys() == METRICS
    made = windows_of(table(13), {"context_length": 8, "prediction_length": 4, "columns": ["b"]}, "given")
    assert np.shape(made["past_values"][:]) == (2, 8, 1) and np.shape(made["labels"][:]) == (2, 4)
    np.testing.assert_allclose(made["labels"][1], table(13)["b"][9:], rtol=1e-6)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "a table of steps is cut into windows by `forecasting:"),
        (["--forecasting", "{context_length: 8}"], "a table of steps is cut into windows by"),
        (["--forecasting", "{context_length: 8, prediction_length: 0}"], "`prediction_length` should be a whole numb"),
        (
            ["--forecasting", "{context_length: 80, prediction_length: 4}"],
            "has 40 steps, fewer than the 80",
        ),
        (["--forecasting", "{context_length: 8, prediction_length: 4, columns: [day]}"], r"\['day'\] hold numbers"),
        (["--test_rows", "3"], "windows of one table overlap"),
        (["--problem_type", "regression", "--max_length", "4"], "`max_length` = 4 would be ignored"),
    ],
)
def test_what_is_no_forecast_is_said(place, argv, message):
    with pytest.raises(ValueError, match=message):
        adapt("--architecture", FLOWFORMER, "--dataset", "steps.csv", *argv)


def test_rows_of_other_sizes_are_named():
    rows = windows(2).to_dict()
    rows["future_values"][1] = rows["future_values"][1][:2]
    with pytest.raises(ValueError, match="row 1 of column `future_values` of the test dataset holds 4 numbers of 8"):
        with_flat_future(Dataset.from_dict(rows), "test")
    rows["future_values"][1] = [[1.0, None]] * 4
    with pytest.raises(ValueError, match="row 1 .* holds 4 numbers of 8"):
        with_flat_future(Dataset.from_dict(rows), "test")


def test_days_of_two_seasons_are_two_domains():
    pytest.importorskip("aeon")
    both, winter = (load_splits("power_demand", options=options) for options in ({}, {"season": "winter"}))
    assert len(both["train"]) == 67 and len(both["test"]) == 1029 and 0 < len(winter["test"]) < 1029
    assert np.shape(winter["train"][0]["past_values"]) == (16, 1) and len(winter["train"][0]["labels"]) == 8
    with pytest.raises(ValueError, match="`season` should be one of"):
        load_splits("power_demand", options={"season": "spring"})
