"""Pre-training on series and trajectories from the arguments to the folder that a task starts from."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from hf_transfer.models.flowformer import DecisionFlowformer, FlowformerForTimeSeriesClassification
from hf_transfer.runs.adapt import run_adaptation, run_pretraining
from hf_transfer.runs.arguments import parse_arguments
from tests.runs.folders import QUICK

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SERIES = {"model_type": "flowformer", "modality": "time_series", **SIZES}
TRAJECTORY = {"model_type": "flowformer", "modality": "trajectory", **SIZES}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """24 series of two channels and of three kinds, and 6 episodes, in the working directory."""
    monkeypatch.chdir(tmp_path)
    draws = np.random.default_rng(0)
    lengths = [int(draws.integers(4, 9)) for _ in range(24)]
    values = [draws.normal(size=(length, 2)).astype("float32").tolist() for length in lengths]
    Dataset.from_dict({"past_values": values, "label": [place % 3 for place in range(24)]}).save_to_disk("series")
    episodes = {"states": 3, "actions": 1}
    rows = {name: [draws.normal(size=(8, width)).tolist() for _ in range(6)] for name, width in episodes.items()}
    Dataset.from_dict({**rows, "rewards": [draws.normal(size=8).tolist() for _ in range(6)]}).save_to_disk("episodes")
    return tmp_path


def arguments(task: str, architecture: dict, dataset: str = "series", *more: str) -> list[str]:
    asked = ["--task", task, "--architecture", json.dumps(architecture), "--dataset", dataset, "--test_rows", "2"]
    return [*asked, *QUICK, "--output_dir", "out", *more]


@pytest.mark.parametrize(
    ("task", "more"),
    [
        ("masked-time-series-modeling", ["--pretraining", "{masked_steps: {share: 0.3, span: 2}}"]),
        ("next-step-prediction", []),
        ("time-series-feature-extraction", ["--objectives", "{simclr: {projection_dim: 8}}"]),
    ],
)
def test_a_classifier_starts_from_what_was_pre_trained(here, task, more):
    metrics = run_pretraining(parse_arguments(arguments(task, SERIES, "series", *more)))
    assert metrics.get("loss", 1.0) > 0 and ("rank_me" in metrics) == ("feature" in task)
    model, report = FlowformerForTimeSeriesClassification.from_pretrained("out/model", output_loading_info=True)
    assert not any(key.startswith("flowformer.") for key in report["missing_keys"])
    assert model.config.num_input_channels == 2 and model.config.is_causal == (task == "next-step-prediction")
    assert task.split("-")[0] in Path("out/model/README.md").read_text()
    adapted = ["--model", "out/model", "--dataset", "series", "--test_rows", "6", *QUICK, "--output_dir", "adapted"]
    assert "accuracy" in run_adaptation(parse_arguments(adapted))


def test_trajectories_pre_train_a_decision_model(here):
    metrics = run_pretraining(parse_arguments(arguments("trajectory-modeling", TRAJECTORY, "episodes")))
    assert metrics["loss"] > 0
    _, report = DecisionFlowformer.from_pretrained("out/model", output_loading_info=True)
    assert not report["missing_keys"]


def test_a_resumed_run_equals_a_straight_one(here):
    base = arguments("masked-time-series-modeling", SERIES, "series", "--learning_rate", "0.01", "--max_steps", "5")
    base += ["--save_strategy", "steps", "--save_steps", "4"]
    straight = run_pretraining(parse_arguments([*base, "--output_dir", "straight"]))
    run_pretraining(parse_arguments([*base, "--output_dir", "out"]))
    for folder in ("out/model", "out/checkpoint-5"):
        for path in Path(folder).iterdir():
            path.unlink()
        Path(folder).rmdir()
    resumed = run_pretraining(parse_arguments([*base, "--output_dir", "out", "--resume"]))
    assert straight["loss"] == resumed["loss"], "the same steps are hidden in every evaluation"
    one, other = (load_file(f"{name}/model/model.safetensors") for name in ("straight", "out"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("next-step-prediction", {**SERIES, "is_causal": False}), "needs a causal model: leave `is_causal` out"),
        (("next-step-prediction", SERIES, "series", "--pretraining", "{}"), "`pretraining` = {} would be ignored"),
        (
            ("masked-time-series-modeling", SERIES, "series", "--pretraining", "{masked_steps: {rate: 1}}"),
            r"`masked_steps` has no \['rate'\], accepted: \['share', 'span'\]",
        ),
        (
            ("masked-time-series-modeling", SERIES, "series", "--pretraining", "{masked_language: {}}"),
            "should be {masked_steps: ...}",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(here, given, message):
    with pytest.raises(ValueError, match=message):
        run_pretraining(parse_arguments(arguments(*given)))


def test_a_model_that_sees_every_step_is_refused_for_the_next_one(here):
    run_pretraining(parse_arguments(arguments("masked-time-series-modeling", SERIES)))
    again = ["--task", "next-step-prediction", "--model", "out/model", "--dataset", "series", *QUICK]
    with pytest.raises(ValueError, match="this one sees every step"):
        run_pretraining(parse_arguments([*again, "--output_dir", "again"]))
