"""Forecasting from a table or windows to a saved model, by Flowformer and PatchTST, and across domains."""

import csv
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from transformers import PatchTSTForRegression

from hf_transfer.data.bundled import load, load_splits
from hf_transfer.data.forecasts import channel_names, last_windows, later_windows, windows_of, with_flat_future
from hf_transfer.models.flowformer import FlowformerForTimeSeriesClassification
from hf_transfer.ranking import rank_models
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.export import export_folder
from hf_transfer.runs.predict import run_prediction
from hf_transfer.runs.rank import run_ranking
from tests.runs.folders import QUICK

FLOWFORMER = "{model_type: flowformer, modality: time_series, hidden_size: 16, num_hidden_layers: 1, "
FLOWFORMER += "num_attention_heads: 2, intermediate_size: 16}"
PATCHTST = "{model_type: patchtst, patch_length: 4, patch_stride: 4, d_model: 16, num_hidden_layers: 1, "
PATCHTST += "num_attention_heads: 2, ffn_dim: 16}"
METRICS = {"loss", "mean_squared_error", "mean_absolute_error", "mean_absolute_scaled_error"}
STEPS = "{context_length: 8, prediction_length: 4}"
FORECASTING = ["--task", "time-series-forecasting", "--output_dir", "out"]


def table(steps: int = 40, phase: float = 0.0) -> Dataset:
    time = np.arange(steps) / 5 + phase
    return Dataset.from_dict({"day": [f"d{n}" for n in range(steps)], "a": np.sin(time), "b": 2 * np.cos(time)})


def windows(count: int = 16, phase: float = 0.0) -> Dataset:
    made = windows_of(table(count + 11, phase), {"context_length": 8, "prediction_length": 4}, "given")
    future = [np.reshape(row, (4, 2)).tolist() for row in made["labels"]]
    return made.select_columns("past_values").add_column("future_values", future)


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
        (["--forecasting", STEPS, "--test_rows", "27"], "29 windows: 27 held out and the 3 that overlap"),
        (
            ["--forecasting", STEPS, "--labels_per_class", "2"],
            "`labels_per_class` draws rows of each class, and these",
        ),
        (["--forecasting", STEPS, "--label_column", "a"], "leave `label_column` out; `forecasting: {columns:"),
        (["--problem_type", "regression", "--max_length", "4"], "`max_length` = 4 would be ignored"),
    ],
)
def test_what_is_no_forecast_is_said(place, argv, message):
    with pytest.raises(ValueError, match=message):
        adapt("--architecture", FLOWFORMER, "--dataset", "steps.csv", *argv)


def dated(first: str, steps: int = 24, step: str = "D", **further) -> Dataset:
    times = pd.date_range(first, periods=steps, freq=step).astype(str).tolist()
    numbers = np.arange(steps, dtype=float)
    return Dataset.from_dict({"date": times, "a": 1000 + 10 * np.sin(numbers), "b": numbers, **further})


def test_a_model_of_a_table_reads_and_tells_its_values(place):
    dated("2020-01-01").to_csv("dated.csv", index=False)
    adapt("--architecture", PATCHTST, "--dataset", "dated.csv", "--forecasting", STEPS)
    kept = PatchTSTForRegression.from_pretrained("out/model").config.forecasting
    assert kept["columns"] == ["a", "b"] and kept["context_length"] == 8
    shops = {name: dated("2021-01-01", 12) for name in ("north", "south")}
    rows = concatenate_datasets([one.add_column("id", [name] * 12) for name, one in shops.items()])
    rows.select_columns(["b", "a", "id", "date"]).to_csv("shops.csv", index=False)
    windows = windows_of(dated("2021-01-01", 12), {"context_length": 8, "prediction_length": 4}, "given")
    assert run_prediction("out/model", "shops.csv", output=Path("out.csv")) == 2
    lines = pd.read_csv("out.csv")
    assert lines["series"].tolist() == ["north"] * 8 + ["south"] * 8 and lines["channel"].tolist() == ["a", "b"] * 8
    assert lines["step"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3] * 2
    # What follows the last eight steps is told of these, in the values of the table.
    model = PatchTSTForRegression.from_pretrained("out/model").eval()
    past = np.stack([dated("2021-01-01", 12)[name][-8:] for name in "ab"], axis=1)
    scaled = torch.tensor((past - kept["mean"]) / kept["deviation"], dtype=torch.float32)
    told = model(past_values=scaled[None]).regression_outputs.detach().numpy().reshape(4, 2)
    expected = told * kept["deviation"] + kept["mean"]
    np.testing.assert_allclose(lines["prediction"][:8], expected.flatten(), rtol=1e-4)
    assert run_evaluation("out/model", "shops.csv").keys() == METRICS and len(windows) == 1


def test_tables_are_ranked_on_standardised_windows(place):
    adapt("--architecture", PATCHTST, "--dataset", "windows.parquet")
    settings = {"context_length": 8, "prediction_length": 4}
    found = run_ranking(["out/model"], "steps.csv", forecasting=settings, score="logme", progress=False)
    table_of_thousands = Dataset.from_dict({name: np.asarray(table()[name]) * 1000 for name in "ab"})
    table_of_thousands.to_csv("thousands.csv", index=False)
    other = run_ranking(["out/model"], "thousands.csv", forecasting=settings, score="logme", progress=False)
    assert found.best.score == pytest.approx(other.best.score, rel=1e-4)


def test_steps_are_even_in_days_months_and_whole_numbers():
    settings = {"context_length": 8, "prediction_length": 4}
    for step in ("D", "h", "MS", "ME", "7D", "YS"):
        assert len(windows_of(dated("2020-01-31", step=step), settings, "given")) == 13
    numbered = dated("2020-01-01").remove_columns("date").add_column("time", list(range(0, 48, 2)))
    assert np.shape(windows_of(numbered, settings, "given")["past_values"][0]) == (8, 2)
    days_first = [f"{day:02d}/03/2020" for day in range(1, 25)]
    assert (
        len(windows_of(dated("2020-01-01").remove_columns("date").add_column("date", days_first), settings, "x")) == 13
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"a": (3, None)}, "column `a` of the test dataset is empty in row 3"),
        ({"a": (3, float("inf"))}, "column `a` of the test dataset holds no finite number in row 3"),
        ({"a": (3, "n/a")}, "column `a` of the test dataset holds numbers and the text 'n/a' in row 3"),
        ({"date": (23, "2020-01-30")}, "row 23 of column `date` .* comes 7 days .* and most rows 1 day"),
        ({"date": (3, "2020-01-03")}, "row 3 of column `date` .* is no later than the row before"),
        ({"date": (3, "soon")}, "column `date` .* holds 'soon', which is no time, in row 3"),
        ({"date": (3, None)}, "column `date` of the test dataset is empty in row 3"),
        ({"settings": ("id_column", "shop")}, r"`id_column` names 'shop', and the table has \['date', 'a', 'b'\]"),
        ({"settings": ("columns", "a")}, "`columns` should be a list of names, got 'a'"),
        ({"settings": ("standardise", 1)}, "`standardise` should be true or false, got 1"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(changed, message):
    settings, rows = {"context_length": 8, "prediction_length": 4}, dated("2020-01-01").to_dict()
    ((column, (place, value)),) = changed.items()
    if column == "settings":
        settings[place] = value
    else:
        rows[column][place] = value
        rows[column] = [str(one) for one in rows[column]] if isinstance(value, str) else rows[column]
    with pytest.raises(ValueError, match=message):
        windows_of(Dataset.from_dict(rows), settings, "test")


@pytest.mark.parametrize("number", ["0,5", "-1.000,5", "1,000", "1,000.5"])
def test_numbers_with_commas_are_no_text(number):
    """Beside a channel of whole numbers, which alone would be read."""
    rows = {"count": list(range(20)), "load": [number, "7"] * 10}
    settings = {"context_length": 8, "prediction_length": 4}
    with pytest.raises(ValueError, match=f"`load` of the test dataset holds numbers with a comma, such as '{number}'"):
        windows_of(Dataset.from_dict(rows), settings, "test")
    assert len(windows_of(Dataset.from_dict(rows), {**settings, "columns": ["count"]}, "test")) == 9


def test_the_index_of_a_frame_is_no_channel(tmp_path):
    frame = pd.DataFrame({"load": np.arange(20) / 2, "cost": [Decimal("1.25")] * 20}, index=[*range(3, 22), 30])
    frame.drop(columns="cost").to_csv(tmp_path / "steps.csv")
    frame.to_parquet(tmp_path / "steps.parquet")
    settings = {"context_length": 8, "prediction_length": 4}
    for name, channels in (("steps.csv", ["load"]), ("steps.parquet", ["load", "cost"])):
        made = windows_of(load(str(tmp_path / name)), settings, "given")
        assert channel_names(made) == channels and made["past_values"][0][1][0] == 0.5
    named = windows_of(load(str(tmp_path / "steps.csv")), {**settings, "columns": ["Unnamed: 0"]}, "given")
    assert named["past_values"][0][0] == [3.0]


@pytest.mark.parametrize("stride", [1, 3])
def test_windows_that_are_held_out_tell_steps_that_no_other_has_seen(stride):
    rows = concatenate_datasets([dated("2020-01-01", steps).add_column("id", [steps] * steps) for steps in (40, 30)])
    settings = {"context_length": 8, "prediction_length": 4, "stride": stride, "columns": ["b"]}
    windows = windows_of(rows, settings, "given")
    left, later, numbers = later_windows(windows, 5, settings, "training")
    assert len(later) == 6 and later["labels"][:] == [windows["labels"][number] for number in numbers]
    for series in ("40", "30"):
        seen = [max(row) for row, name in zip(left["labels"], left["series"], strict=True) if name == series]
        told = [min(row) for row, name in zip(later["labels"], later["series"], strict=True) if name == series]
        assert len(told) == 3 and max(seen) < min(told) <= max(seen) + stride
    with pytest.raises(ValueError, match=r"the training rows have \d+ windows of the series '\d0': 20 held out"):
        later_windows(windows, 40, settings, "training")


def test_test_rows_of_a_table_are_its_last_windows(place):
    metrics = adapt("--architecture", FLOWFORMER, "--dataset", "steps.csv", "--forecasting", STEPS, "--test_rows", "5")
    assert metrics.keys() == METRICS
    kept = FlowformerForTimeSeriesClassification.from_pretrained("out/model").config.forecasting
    assert kept["mean"][0] == pytest.approx(np.mean([np.asarray(table()["a"])[n : n + 12] for n in range(21)]))


def test_a_series_that_is_too_short_is_named():
    rows = concatenate_datasets(
        [dated("2020-01-01", steps).add_column("id", [steps] * steps) for steps in (20, 11, 10)]
    )
    settings = {"context_length": 8, "prediction_length": 4}
    with pytest.raises(ValueError, match=r"has 11 steps in the series `11`, fewer than the 8 \+ 4 .*2 of 3 series"):
        windows_of(rows, settings, "test")
    assert len(last_windows(rows, settings, "test")) == 3


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


LORA = "{peft_type: LORA, r: 2, target_modules: [q_proj, v_proj]}"


def test_an_adapter_of_a_model_of_tables_is_measured_as_its_run_and_exported(place):
    """Its windows may be cut otherwise than its base's, whose mean and deviation it keeps."""
    data = ["--dataset", "steps.csv", "--test_dataset", "later.csv"]
    adapt("--architecture", PATCHTST, *data, "--forecasting", STEPS)
    others = ["--model", "out/model", "--peft", LORA, "--output_dir", "lora", "--forecasting"]
    run = adapt(*data, *others, STEPS.replace("}", ", stride: 3}"))
    measured = run_evaluation("lora/model", "later.csv")
    assert dict(measured) == pytest.approx(run, abs=1e-6) and measured.rows == 10
    export_folder("lora/model", "merged")
    again = run_evaluation("merged", "later.csv")
    assert dict(again) == pytest.approx(run, abs=1e-5) and again.rows == 10
    with pytest.raises(ValueError, match="the adapter's base standardises tables .* leave `standardise: false` out"):
        adapt(*data, *others, STEPS.replace("}", ", standardise: false}"), "--overwrite")
