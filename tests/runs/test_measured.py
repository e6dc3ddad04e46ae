"""What a run with episodes measures: its features over episodes, and no head that nothing trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from tests import tiny
from tests.runs.folders import QUICK, save_digits, save_image_model

EPISODES = ["--model", "vit", "--dataset", "digits", *QUICK, "--per_device_train_batch_size", "8", "--objectives"]
EPISODES += ["{prototypical: {ways: 2, shots: 2, queries: 2}}"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_image_model(Path("vit"), tiny.vit())
    save_digits(Path("digits"), 0, 160)


def test_a_head_that_nothing_trains_is_not_measured():
    metrics = run_adaptation(parse_arguments([*EPISODES, "--task_loss_weight", "0", "--test_rows", "60"]))
    assert set(metrics) == {"few_shot_accuracy", "few_shot_interval"}
    assert 0.5 < metrics["few_shot_accuracy"] <= 1.0  # of two digits; chance is one half
    assert json.loads((metrics.folder / "results.json").read_text()) == metrics
    (result,) = ModelCard.load(metrics.folder / "README.md").data.eval_results[:1]
    assert result.metric_type == "few_shot_accuracy"


def test_a_head_that_learns_beside_the_episodes_is_measured_too():
    metrics = run_adaptation(parse_arguments([*EPISODES, "--test_rows", "60"]))
    assert {"accuracy", "few_shot_accuracy"} <= set(metrics)


def test_too_few_rows_for_episodes_leave_the_head():
    metrics = run_adaptation(parse_arguments([*EPISODES, "--task_loss_weight", "0", "--test_rows", "10"]))
    assert "accuracy" in metrics and "few_shot_accuracy" not in metrics


def test_weights_that_adapt_are_measured_before_and_after_their_steps():
    objective = "{maml: {ways: 2, shots: 2, queries: 2, episodes_per_batch: 1, inner_steps: 1}}"
    told = [*EPISODES[:-1], objective, "--task_loss_weight", "0", "--test_rows", "60"]
    metrics = run_adaptation(parse_arguments(told))
    assert set(metrics) == {"few_shot_accuracy", "few_shot_accuracy_before_steps", "few_shot_interval"}
    assert all(0 <= value <= 1 for value in metrics.values())
