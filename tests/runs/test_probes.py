"""Transfer probes of a run: named in its arguments, on its card, and refused where nothing would read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_transfer.runs.adapt import run_adaptation, run_pretraining
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.probes import measured_on
from tests.runs.folders import ARCHITECTURE, QUICK, save_digits

MASKED = ["--task", "masked-image-modeling", "--dataset", "digits", *QUICK, "--eval_strategy", "steps"]
MASKED += ["--eval_steps", "1", "--architecture", str({**ARCHITECTURE, "mask_ratio": 0.5})]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_digits(Path("digits"), 0, 40)
    save_digits(Path("few"), 40, 120)


def pretrain(*more: str):
    return run_pretraining(parse_arguments([*MASKED, *more]))


def test_the_card_tells_what_was_probed_and_draws_it():
    metrics = pretrain("--transfer_probes", "{digits: {dataset: few, max_samples: 60}, scores: [logme, knn]}")
    assert {"digits_logme", "digits_knn"} <= set(metrics)
    card = (metrics.folder / "README.md").read_text()
    assert "| few | its rows, which only probe the features | digits_logme |" in card
    assert "Transfer probes over the training" in card and (metrics.folder / "plots" / "transfer_probes.png").is_file()


@pytest.mark.parametrize(
    ("probes", "more", "message"),
    [
        ("{digits: {rows: few}}", (), "`digits` should be a data set or a mapping with `dataset`"),
        ("{digits: few, scores: [best]}", (), "best"),
        ("{digits: few}", ("--eval_strategy", "no"), "measured at evaluations: give an `eval_strategy`"),
        ("{digits: few}", ("--early_stopping_patience", "2"), "give `load_best_model_at_end"),
        ("{digits: nowhere}", (), "nowhere"),
    ],
)
def test_what_cannot_be_probed_is_refused_before_training(probes, more, message, monkeypatch):
    monkeypatch.setattr("transformers.Trainer.train", lambda *args, **kwargs: pytest.fail("training began"))
    with pytest.raises((ValueError, OSError), match=message):
        pretrain("--transfer_probes", probes, *more)


def test_a_run_with_labels_has_no_use_for_probes():
    told = ["--dataset", "digits", "--task", "image-classification", *QUICK, "--architecture", str(ARCHITECTURE)]
    with pytest.raises(ValueError, match="`transfer_probes` = .* would be ignored: it is for pre-training without"):
        run_adaptation(parse_arguments([*told, "--transfer_probes", "{digits: few}"]))


def test_a_metric_belongs_to_the_probe_whose_name_it_begins_with():
    named = {"digits": "few", "scores": ["knn"]}
    assert measured_on("digits_knn", named)[0] == "few" and measured_on("rank_me", named) is None
