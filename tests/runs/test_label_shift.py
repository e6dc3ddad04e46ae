"""Class shares that a run estimates, says, trains by and tells on the card; and what it refuses."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from datasets import load_from_disk
from safetensors.torch import load_file

from hf_transfer.runs.adapt import make_adaptation, run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.label_shift import with_held_out_source
from hf_transfer.runs.saving import read_results
from tests.runs.folders import QUICK

DOMAIN = ["--model", "vit", "--dataset", "digits", "--target_dataset", "more_digits", "--test_rows", "20", *QUICK]
DOMAIN += ["--learning_rate", "0.01", "--source_holdout", "0.3", "--output_dir", "out"]
CORRECT = ["--label_shift", "correct"]


def adapt(*argv: str):
    return run_adaptation(parse_arguments([*DOMAIN, *argv]))


def weights(folder: str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model" / "model.safetensors")


def same(first: str, second: str) -> bool:
    one, other = weights(first), weights(second)
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_shares_are_said_before_the_training_and_told_after_it(here, caplog):
    with caplog.at_level(logging.WARNING):
        adapt("--objectives", "{dann: {hidden_size: 8}, mcc: {}}", *CORRECT, "--max_steps", "6")
    told = [record.getMessage() for record in caplog.records]
    said = next(i for i, line in enumerate(told) if line.startswith("Class shares of the target, estimated without"))
    assert "from 24 held-out source rows and 30 target rows" in told[said]
    assert "Source rows are weighted by class in the task loss and `dann`; not in `mcc`." in told[said:]
    results = read_results("out/model")
    shift = results["label_shift"]
    source, target, errors, weight = zip(*shift["classes"].values())
    assert shift["is_corrected"] and sum(source) == pytest.approx(1) == sum(target) and max(errors) > 0
    assert [s * w for s, w in zip(source, weight)] == pytest.approx(target)
    card = Path("out/model/README.md").read_text()
    assert "Class shares" in card and "target, estimated" in card and "RLLS" in card and "1903.09734" in card
    short = json.loads(Path("out/label_shift/model/training_log.json").read_text())["hyper_parameters"]
    assert short["max_steps"] == 2, "a third of the steps"
    assert not any("is_corrected" in str(value) for value in read_results("out/label_shift/model").values())


def test_the_short_training_of_an_estimate_does_not_end_early(here):
    every = ["--eval_strategy", "steps", "--eval_steps", "1", "--save_strategy", "steps", "--save_steps", "1"]
    early = [*every, "--load_best_model_at_end", "--early_stopping_patience", "1", "--learning_rate", "0"]
    adapt("--objectives", "{mcc: {}}", *CORRECT, "--max_steps", "9", *early)
    steps = {}
    for folder in ("out", "out/label_shift"):
        log = json.loads(Path(folder, "model", "training_log.json").read_text())
        steps[folder] = log["log_history"][-1]["step"]
    assert steps == {"out": 2, "out/label_shift": 3}


def test_the_trainer_weighs_by_the_estimate_and_its_validator_asks_for_it(here, monkeypatch):
    seen = {}
    ordinary = torch.nn.functional.kl_div

    def finish(trainer, experiment, data, reference=None, shift=None):
        seen.update(trainer=trainer, shift=shift)
        return ordinary

    monkeypatch.setattr("hf_transfer.runs.adapt.finish", finish)
    adapt("--objectives", "{mcc: {}}", *CORRECT)
    trainer, shift = seen["trainer"], seen["shift"]
    torch.testing.assert_close(trainer.transfer_model.class_weights, shift.weights.float())
    _, logits, domain, _ = trainer.validation_outputs()
    p = logits[domain == 1].double().softmax(1)
    mean, prior = p.mean(0), (30 * shift.target + 1) / 40
    divergence = (mean * (mean / prior).log()).sum()
    entropy = -(p * p.log()).sum(1).mean()
    assert trainer.validate() == pytest.approx(float(torch.tensor(10.0).log() - divergence - entropy), abs=1e-5)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    model = trainer.transfer_model.train()
    model.objectives.clear()
    weighted = model(**batch).losses["task"]
    labels = batch["labels"]
    losses = torch.nn.functional.cross_entropy(model(**batch).logits, labels, reduction="none")
    torch.testing.assert_close(weighted, (losses * shift.weights.float()[labels]).mean().detach())
    torch.testing.assert_close(model.eval()(**batch).loss, losses.mean(), msg="evaluation is unweighted")


@pytest.mark.slow  # three trainings
def test_ignoring_a_shift_changes_no_bit_and_the_guard_tells_it(here):
    adapt("--objectives", "{mcc: {}}", "--output_dir", "plain")
    adapt("--objectives", "{mcc: {}}", "--guard", "--keep_adapted", "--label_shift", "ignore")
    assert same("plain", "out") and "label_shift" not in read_results("plain/model")
    assert read_results("out/model")["label_shift"]["is_corrected"] is False
    assert "The training does not use them (`label_shift: ignore`)" in Path("out/model/README.md").read_text()


@pytest.mark.slow
def test_the_guards_model_estimates_and_source_only_may_be_corrected(here, caplog):
    adapt("--output_dir", "reference")
    named = ["--source_only", "reference/model", "--keep_adapted", *CORRECT]
    with caplog.at_level(logging.WARNING):
        adapt("--objectives", "{}", *named)
    assert not Path("out/label_shift").exists()
    assert "it may have seen" not in caplog.text
    assert read_results("out/model")["guard"]["kept"] == "adapted"
    with caplog.at_level(logging.WARNING):
        adapt("--objectives", "{}", *named, "--output_dir", "other", "--seed", "1")
    assert "was not trained with this `source_holdout` and `seed`: it may have seen" in caplog.text


@pytest.mark.slow
def test_it_resumes_as_a_straight_run(here):
    words = [
        "--objectives",
        "{dann: {hidden_size: 8}}",
        *CORRECT,
        "--max_steps",
        "4",
        "--lr_scheduler_type",
        "constant",
    ]
    words += ["--save_strategy", "steps", "--save_steps", "2"]
    adapt(*words)
    straight = weights("out")
    for path in (Path("out/checkpoint-4"), Path("out/model")):
        for file in sorted(path.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        path.rmdir()
    adapt(*words, "--resume")
    assert all(torch.equal(value, straight[name]) for name, value in weights("out").items())


def test_without_a_holdout_a_tenth_is_held_out(here):
    words = [word for word in DOMAIN if word not in ("--source_holdout", "0.3")]
    assert with_held_out_source(parse_arguments([*words, *CORRECT])).config.source_holdout == 0.1
    assert with_held_out_source(parse_arguments(words)).config.source_holdout == 0


@pytest.mark.parametrize(
    "words, message",
    [
        (["--label_shift", "estimate"], "`label_shift` should be one of .'ignore', 'correct'., got 'estimate'"),
        ([*CORRECT, "--objectives", "{pada: {}}"], "target with the source's classes, and .'pada'. is made for one"),
        (
            [*CORRECT, "--objectives", "{noisy_student: {}}", "--student_rounds", "1"],
            "for one training, not for rounds",
        ),
        ([*CORRECT, "--streaming"], "which those of a stream have no numbers for"),
    ],
)
def test_what_cannot_be_corrected_is_refused_before_training(here, monkeypatch, words, message):
    monkeypatch.setattr("transformers.Trainer.train", lambda *args, **kwargs: pytest.fail("training began"))
    with pytest.raises(ValueError, match=message):
        adapt(*words)


def test_it_is_for_domain_adaptation(here):
    with pytest.raises(ValueError, match="`label_shift` = 'correct' would be ignored: it is for domain adaptation"):
        make_adaptation(
            parse_arguments(["--model", "vit", "--dataset", "digits", "--output_dir", "o", *QUICK, *CORRECT])
        )


def test_numbers_have_no_class_shares(here, monkeypatch):
    monkeypatch.setattr("transformers.Trainer.train", lambda *args, **kwargs: pytest.fail("training began"))
    for name in ("digits", "more_digits"):
        rows = load_from_disk(name)
        numbers = [label / 9 for label in rows["label"]]
        rows.remove_columns("label").add_column("label", numbers).save_to_disk(f"numbers_{name}")
    with pytest.raises(ValueError, match="this task is regression: it is for rows with one class each"):
        adapt("--dataset", "numbers_digits", "--target_dataset", "numbers_more_digits", *CORRECT)
