"""Predictions of rows without labels, as a csv file."""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hf_transfer.runs.predict import answers_of, run_prediction
from tests.tiny import SENTENCES


def read(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_texts_without_labels_get_a_class_and_its_probability(here):
    texts = [text for text, _ in SENTENCES[:5]]
    with Path("rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    assert run_prediction("bert", "rows.csv", output=Path("answers/out.csv"), batch_size=2) == 5
    answers = read("answers/out.csv")
    assert [row["text"] for row in answers] == texts and [row["row"] for row in answers] == list("01234")
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in answers)
    with pytest.raises(FileExistsError, match="replace it with --overwrite"):
        run_prediction("bert", "rows.csv", output=Path("answers/out.csv"))


def test_labels_are_not_read_and_pictures_have_no_text(here):
    assert run_prediction("vit", "digits", output=Path("out.csv")) == 80
    assert read("out.csv")[0].keys() == {"row", "prediction", "probability"}


def test_other_tasks_are_refused(here):
    with pytest.raises(ValueError, match="`task` should be one of .* got `fill-mask`"):
        run_prediction("bert", "books.csv", task="fill-mask", output=Path("out.csv"))


def test_answers_of_every_problem_type():
    def config(kind: str, *names: str) -> SimpleNamespace:
        return SimpleNamespace(problem_type=kind, num_labels=len(names), id2label=dict(enumerate(names)))

    logits = torch.tensor([[0.0, 2.0], [3.0, 3.0]])
    assert answers_of(logits, config("single_label_classification", "a", "b"))["prediction"] == ["b", "a"]
    several = answers_of(logits, config("multi_label_classification", "a", "b"))
    assert several["prediction"][1] == "a; b" and several["b"][0] == pytest.approx(0.8808, abs=1e-4)
    assert answers_of(logits, config("regression", "x", "y")) == {
        "prediction_0": [0.0, 3.0],
        "prediction_1": [2.0, 3.0],
    }
    assert answers_of(logits[:, :1], config("regression", "x")) == {"prediction": [0.0, 3.0]}
