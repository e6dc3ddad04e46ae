"""A teacher and its students from the command line's arguments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.saving import read_results
from tests.runs.folders import ARCHITECTURE, QUICK
from tests.runs.test_adapt import no_training

DATA = ["--dataset", "digits", "--target_dataset", "more_digits", "--test_rows", "20", *QUICK, "--output_dir", "out"]
TAUGHT = ["--objectives", "{noisy_student: {soft: false}, mcc: {}}"]
ROUNDS = ["--architecture", json.dumps(ARCHITECTURE), *DATA, *TAUGHT, "--student_rounds", "1"]


def adapt(*argv: str) -> dict[str, float]:
    return run_adaptation(parse_arguments(argv))


def test_a_larger_student_learns_from_the_first_model_and_a_finished_run_is_passed_over(here, monkeypatch):
    results = adapt(*ROUNDS, "--student", "{num_hidden_layers: 2}")
    assert results == read_results("out/model") and 0 <= results["accuracy"] <= 1
    layers = [AutoConfig.from_pretrained(folder).num_hidden_layers for folder in ("out/round-0/model", "out/model")]
    assert layers == [1, 2]
    first, last = (Path(folder, "README.md").read_text() for folder in ("out/round-0/model", "out/model"))
    assert "MCC" in first and "NoisyStudent" not in first
    assert "NoisyStudent" in last and "1911.04252" in last
    with pytest.raises(FileExistsError, match="go on with --resume"):
        adapt(*ROUNDS)
    no_training(monkeypatch)
    assert adapt(*ROUNDS, "--resume") == results


@pytest.mark.parametrize(
    "changes, complaint",
    [
        (["--objectives", "{mcc: {}}"], "`student_rounds` needs an objective that takes a teacher"),
        (["--architecture", "null", "--model", "vit", "--student", "{a: 1}"], "`student` changes an `architecture`"),
        (["--student_rounds", "0", "--student", "{a: 1}"], "`student` changes the students of `student_rounds`"),
        (["--student_rounds", "-1"], "`student_rounds` should be at least 0, got -1"),
    ],
)
def test_rounds_that_make_no_sense_are_refused_before_training(here, monkeypatch, changes, complaint):
    no_training(monkeypatch)
    with pytest.raises(ValueError, match=complaint):
        adapt(*ROUNDS, *changes)
