"""Adapted or source only: which model a run keeps, and what it says."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import equal

from hf_transfer.runs import reference
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.guard import GuardVerdict
from hf_transfer.runs.saving import read_results
from hf_transfer.training.family_trainers import DomainAdaptationTrainer
from hf_transfer.training.trainer import TransferTrainer
from tests.runs.folders import QUICK, digits

DOMAIN = ["--model", "vit", "--dataset", "digits", "--target_dataset", "more_digits", "--test_rows", "20", *QUICK]
DOMAIN += ["--objectives", "{mcc: {}}", "--learning_rate", "0.01"]


def adapt(*argv: str) -> dict[str, float]:
    return run_adaptation(parse_arguments([*DOMAIN, *argv]))


def weights(folder: str):
    return load_file(Path(folder) / "model" / "model.safetensors")


def same(first: str, second: str) -> bool:
    one, other = weights(first), weights(second)
    return all(equal(value, other[name]) for name, value in one.items())


@pytest.fixture
def scores(monkeypatch):
    """The validator prefers the adapted model, or does not, as told."""

    def give(adapted: float, source_only: float) -> None:
        ordinary = DomainAdaptationTrainer.validate
        given = iter([adapted, source_only])

        def validate(self):
            return next(given) if self.transfer_model.objectives and self.state.global_step == 2 else ordinary(self)

        # `evaluate` asks again for the log, after the choice has been made.
        monkeypatch.setattr(DomainAdaptationTrainer, "validate", validate)
        for name in ("evaluation_loop", "evaluate"):
            monkeypatch.setattr(DomainAdaptationTrainer, name, getattr(TransferTrainer, name))

    return give


def test_a_worse_adaptation_gives_way_to_source_only(here, scores, caplog):
    scores(0.1, 0.4)
    with caplog.at_level(logging.WARNING):
        adapt("--output_dir", "out", "--guard")
    assert same("out", "out/source_only")
    results = read_results("out/model")
    assert results["kept"] == "source only"
    assert 0 <= results["guard"].pop("share_distance") <= 1
    assert results["guard"] == {
        "validator": "information_maximization", "adapted": 0.1, "source_only": 0.4, "kept": "source only"
    }  # fmt: skip
    assert results["accuracy"] == read_results("out/source_only/model")["accuracy"]
    assert "negative transfer, source only is kept" in caplog.text
    card = Path("out/model/README.md").read_text()
    assert "negative transfer, source only is kept" in card and "| MCC |" not in card


def test_a_better_adaptation_is_kept_as_if_nobody_had_asked(here, scores):
    """The guard changes neither the training nor what comes after it; a saved source-only run is compared with too."""
    adapt("--output_dir", "plain")
    assert "was not compared with source only" in read_results("plain/model")["warnings"][0]
    assert "`guard: true` trains source only first" in Path("plain/model/README.md").read_text()
    scores(0.4, 0.1)
    adapt("--output_dir", "out", "--guard")
    assert not any("not compared" in warning for warning in read_results("out/model").get("warnings", []))
    source, target = zip(*(read_results("out/model")["class_shares"][str(digit)] for digit in range(10)))
    assert sum(source) == pytest.approx(1) == sum(target)
    assert same("out", "plain") and not same("out", "out/source_only")
    assert read_results("out/model")["kept"] == "adapted"
    assert "; the adapted model is kept." in Path("out/model/README.md").read_text()
    scores(0.1, 0.4)
    adapt("--output_dir", "saved", "--source_only", "out/source_only/model")
    assert same("saved", "out/source_only")


def test_the_adapted_model_is_kept_when_told_so(here, scores):
    scores(0.1, 0.4)
    adapt("--output_dir", "out", "--source_only", "vit", "--keep_adapted")
    assert not equal(weights("out")["classifier.weight"], load_file("vit/model.safetensors")["classifier.weight"])
    results = read_results("out/model")
    assert results["kept"] == "adapted" and results["guard"]["adapted"] == 0.1
    assert "kept all the same, as asked" in Path("out/model/README.md").read_text()


def test_the_scores_are_those_of_the_validator_on_both_models(here):
    adapt("--output_dir", "out", "--source_only", "vit", "--validator", "entropy")
    verdict = read_results("out/model")["guard"]
    kept = verdict["adapted"] if verdict["kept"] == "adapted" else verdict["source_only"]
    assert kept == max(verdict["adapted"], verdict["source_only"])
    assert read_results("out/model")["entropy"] == pytest.approx(kept, abs=1e-6)
    assert json.loads(Path("out/model/results.json").read_text())["validators"]["entropy"] == pytest.approx(kept)


def test_checkpoints_of_a_run_that_is_overwritten_are_gone_before_the_reference_trains(here, monkeypatch):
    """Interrupted while it trains, a later --resume would go on from the run before."""

    def interrupted(*given):
        assert not Path("out/checkpoint-7").exists()
        raise KeyboardInterrupt

    Path("out/checkpoint-7").mkdir(parents=True)
    monkeypatch.setattr(reference, "single_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        adapt("--guard", "true", "--overwrite", "true", "--output_dir", "out")


def test_a_regression_is_guarded_by_dev(here):
    for name, places in (("numbers", range(80)), ("more_numbers", range(80, 130))):
        rows = digits().select(places)
        numbers = [label / 9 for label in rows["label"]]
        rows.remove_columns("label").add_column("label", numbers).save_to_disk(name)
    arguments = ["--dataset", "numbers", "--target_dataset", "more_numbers", "--objectives", "{dd: {hidden_size: 8}}"]
    adapt(*arguments, "--output_dir", "out", "--guard", "--diagnostics", "true")
    results = read_results("out/model")
    assert results["guard"]["validator"] == "dev" and results["validators"].keys() == {"dev", "dd", "source_risk"}
    kept = "adapted" if results["kept"] == "adapted" else "source_only"
    assert results["dev"] == pytest.approx(results["guard"][kept], abs=1e-6)
    assert Path("out/figures/domains.png").is_file() and not Path("out/figures/confusion.png").exists()


@pytest.mark.parametrize(
    "folder, message",
    [("three", "of the kind in training"), ("headless", "lacks weights"), ("nowhere", "no such folder")],
)
def test_another_kind_of_model_is_refused_before_training(here, monkeypatch, folder, message):
    monkeypatch.setattr("transformers.Trainer.train", lambda *args, **kwargs: pytest.fail("training began"))
    with pytest.raises(ValueError, match=message):
        adapt("--output_dir", "out", "--source_only", folder)


def test_what_cannot_be_compared(here):
    with pytest.raises(ValueError, match="give one of them"):
        adapt("--output_dir", "out", "--guard", "--source_only", "vit")
    with pytest.raises(ValueError, match="`keep_adapted` overrules `guard`"):
        adapt("--output_dir", "out", "--keep_adapted")
    with pytest.raises(ValueError, match="give a `target_dataset` and objectives"):
        adapt("--output_dir", "out", "--guard", "--objectives", "{}")


def test_two_models_that_predict_other_class_shares_leave_a_doubt():
    """A validator prefers even predictions: 70.6 % right over 82.0 % where the target has 85 % of one class."""
    sure = GuardVerdict("information_maximization", 0.4, 0.1, "adapted", 0.05)
    doubtful = replace(sure, share_distance=0.38)
    assert sure.in_words().endswith("the adapted model is kept.")
    assert "(distance 0.38 of 1), and no validator without target labels can tell" in doubtful.in_words()


@pytest.fixture
def passes(monkeypatch):
    """(description, rows) of every pass over rows outside the training."""
    seen, ordinary = [], TransferTrainer.evaluation_loop

    def loop(self, dataloader, description, *args, **kwargs):
        seen.append((description, len(dataloader.dataset)))
        return ordinary(self, dataloader, description, *args, **kwargs)

    monkeypatch.setattr(TransferTrainer, "evaluation_loop", loop)
    return seen


def test_one_pass_over_bounded_rows_serves_validators_evaluation_and_pictures(here, passes):
    adapt("--output_dir", "out", "--diagnostics", "true", "--validation_rows", "10")
    assert passes == [("Prediction", 20), ("Prediction", 20), ("Evaluation", 20)], "before, after, and the test rows"
    assert {"figures/confusion.png", "figures/domains.png"} <= {
        path.relative_to("out").as_posix() for path in Path("out").rglob("*.png")
    }


def test_a_guard_costs_one_pass_more_which_is_the_picture_of_before(here, passes):
    adapt("--output_dir", "out", "--source_only", "vit", "--diagnostics", "true", "--validation_rows", "10")
    assert passes == [("Prediction", 20), ("Prediction", 20), ("Evaluation", 20)]
    assert "source only and after" in Path("out/model/README.md").read_text()


@pytest.mark.slow
def test_every_pass_has_a_bar_of_its_own_length(here, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, **kwargs):
            self.total, self.count = total, 0
            bars.append(self)

        def update(self, steps):
            self.count += steps

        def write(self, text): ...

        def close(self): ...

    monkeypatch.setattr("transformers.trainer_callback.tqdm", Bar)
    adapt("--output_dir", "out", "--diagnostics", "true", "--per_device_eval_batch_size", "4")
    assert len(bars) > 3 and [bar.count for bar in bars] == [bar.total for bar in bars]
