"""What a run says at its end, and when it is interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table
from transformers import EvalPrediction

from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.report import (
    Remembering,
    class_table,
    next_commands,
    tell_classes,
    tell_end,
    tell_interruption,
    unbroken,
)

FIGURES = {"cat": {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "rows": 4}}
RESULTS = {"accuracy": 0.875, "entropy": -0.25, "validators": {"entropy": -0.25}, "per_class": FIGURES}


@pytest.fixture
def arguments(tmp_path):
    words = ["--model", "vit", "--dataset", "digits", "--target_dataset", "my photos", "--output_dir", str(tmp_path)]
    return parse_arguments([*words, "--report_to", "[]", "--use_cpu", "--task", "image-classification"])


def test_the_end_names_figures_folder_and_next_commands(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "figures").mkdir()
    tell_end(tmp_path / "model", RESULTS, arguments, None)
    told = capsys.readouterr()
    assert told.out == "", "the metrics alone are on the output, as JSON"
    lines = [line.split() for line in told.err.splitlines()]
    assert ["accuracy", "0.8750"] in lines and ["cat", "1.0000", "0.5000", "0.6667", "4"] in lines
    assert f"Saved: {tmp_path / 'model'} (" in told.err and f"Pictures: {tmp_path / 'figures'}." in told.err
    assert f"hf-transfer predict {tmp_path / 'model'} --dataset 'my photos'" in told.err


@pytest.mark.parametrize("kept", ["adapted", "source only"])
def test_source_only_stands_beside_the_adapted_model(arguments, tmp_path, capsys, kept):
    reference = tmp_path / "source_only"
    reference.mkdir()
    (reference / "results.json").write_text(json.dumps({"accuracy": 0.5, "entropy": -0.5}))
    tell_end(tmp_path / "model", {**RESULTS, "kept": kept}, arguments, reference, "`entropy`: the verdict.")
    told = capsys.readouterr().err
    (accuracy,) = [line.split() for line in told.splitlines() if line.split()[:1] == ["accuracy"]]
    assert "`entropy`: the verdict." in told
    if kept == "adapted":
        assert accuracy == ["accuracy", "0.8750", "0.5000"] and "source only" in told
    else:
        assert accuracy == ["accuracy", "0.8750"] and "adapted (not kept)" in told and "source only (kept)" in told


def test_next_commands_are_those_that_are_left(arguments):
    assert [line.split()[1] for line in next_commands(Path("out"), arguments)] == ["predict", "evaluate", "push"]
    for task, first in (("fill-mask", ["rank", "adapt"]), ("offline-reinforcement-learning", [])):
        arguments[0].task = task
        assert [line.split()[1] for line in next_commands(Path("out"), arguments)] == [*first, "push"]
    arguments[0].task = "image-classification"
    arguments[3].push_to_hub, arguments[1].test_dataset = True, "tests"
    assert [line.split()[1] for line in next_commands(Path("out"), arguments)] == ["predict"]


def test_an_interrupted_run_says_what_is_saved_and_how_to_go_on(tmp_path, capsys):
    words = ["hf-transfer", "adapt", "my run.yaml", "--output_dir", str(tmp_path), "--overwrite"]
    tell_interruption(tmp_path, words)
    assert f"Stopped. No checkpoint is in {tmp_path} yet" in capsys.readouterr().err
    (tmp_path / "checkpoint-20").mkdir()
    (tmp_path / "checkpoint-20" / "trainer_state.json").write_text("{}")
    tell_interruption(tmp_path, words)
    told = capsys.readouterr().err
    assert "checkpoint-20 keeps the first 20 steps" in told
    assert told.strip().endswith(f"hf-transfer adapt 'my run.yaml' --output_dir {tmp_path} --resume")


def test_what_was_measured_is_kept_and_classes_have_their_figures():
    measured = Remembering(lambda prediction: {"rows": len(prediction.label_ids)})
    config = SimpleNamespace(problem_type="single_label_classification", num_labels=2, id2label={0: "cat", 1: "dog"})
    assert measured.class_figures(config) == {}
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert measured(EvalPrediction(logits, np.array([0, 1, 0, -100]))) == {"rows": 4}
    figures = measured.class_figures(config)
    assert figures["cat"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "rows": 2}
    assert figures["dog"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "rows": 1}
    assert class_table(figures, "digits").rows[0][:3] == ["cat", 1.0, 0.5]


def test_few_classes_are_told_and_many_are_not(capsys):
    tell_classes(FIGURES)
    assert "cat" in capsys.readouterr().err
    tell_classes({str(place): FIGURES["cat"] for place in range(31)})
    assert capsys.readouterr().err == ""


def test_a_long_name_is_not_broken_in_its_middle_on_a_narrow_screen(capsys):
    table = Table("", "model", box=None)
    table.add_row("information_maximization_of_the_target", "0.1")
    Console(width=80).print(unbroken(table))
    assert "information_maximization_of_the_target" in capsys.readouterr().out
