"""Whole runs from the command line's arguments to the published folder."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard
from packaging.version import Version
from peft import AutoPeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedImageModeling,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from hf_transfer.runs.adapt import run_adaptation, run_pretraining
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.saving import read_results
from hf_transfer.training.transfer_callback import TransferCallback
from tests import tiny
from tests.marks import slow
from tests.runs.folders import ARCHITECTURE, QUICK, causal_lm, digits, masked_lm, save_books, save_text_model

DIGITS = ["--model", "vit", "--dataset", "digits", "--test_rows", "20", *QUICK]
BOOKS = ["--task", "text-classification", "--dataset", "books.csv", "--test_dataset", "books.csv", *QUICK]
DOMAIN = ["--model", "vit", "--dataset", "digits", "--target_dataset", "more_digits", "--test_rows", "20"]


def adapt(*argv: str) -> dict[str, float]:
    return run_adaptation(parse_arguments(argv))


def pretrain(*argv: str) -> dict[str, float]:
    return run_pretraining(parse_arguments(argv))


def killed_at_step(step: int, *argv: str) -> int:
    """The signal that ended a process which ran `adapt(*argv)` and was killed in the middle of its training."""
    process = os.fork()
    if process == 0:
        ordinary = TransferCallback.on_step_end

        def on_step_end(self, args, state, control, **kwargs):
            ordinary(self, args, state, control, **kwargs)
            if state.global_step == step:
                os.kill(os.getpid(), signal.SIGKILL)

        TransferCallback.on_step_end = on_step_end
        try:
            adapt(*argv)
        finally:
            os._exit(1)
    return os.WTERMSIG(os.waitpid(process, 0)[1])


@pytest.fixture
def one_thread():
    """Threads do not survive a fork, and sums are rounded by how they are split among threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def no_training(monkeypatch) -> None:
    def fail(*args, **kwargs):
        raise AssertionError("training began")

    monkeypatch.setattr("transformers.Trainer.train", fail)


def test_task_adaptation_writes_a_model_its_card_and_its_results(here):
    metrics = adapt(*DIGITS, "--output_dir", "out", "--objectives", "{l2_sp: {}, bss: {weight: 0.01}}")
    assert metrics.keys() == {"loss", "accuracy", "macro_f1"}
    assert read_results("out/model") == metrics
    model = AutoModelForImageClassification.from_pretrained("out/model")
    assert model.config.id2label[7] == "7"
    card = ModelCard.load("out/model/README.md")
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == pytest.approx(metrics, abs=1e-6)
    assert "AutoModelForImageClassification" in card.text and "L2SP" in card.text and "BSS" in card.text


def test_the_seed_decides_and_nothing_else(here):
    arguments = ["--model", "headless", "--dataset", "digits", "--test_rows", "20", *QUICK]
    torch.manual_seed(5)
    first = adapt(*arguments, "--output_dir", "first")
    torch.manual_seed(6)
    assert adapt(*arguments, "--output_dir", "again") == first
    assert adapt(*arguments, "--output_dir", "other", "--seed", "1") != first


def test_the_weights_move_and_the_start_does_not(here):
    before = load_file("vit/model.safetensors")
    adapt(*DIGITS, "--output_dir", "out")
    after = load_file("out/model/model.safetensors")
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])
    assert all(torch.equal(value, load_file("vit/model.safetensors")[name]) for name, value in before.items())


def test_a_file_of_settings_and_overrides(here):
    settings = {"model": "flow", "dataset": "digits", "labels_per_class": 2, "test_rows": 30, "max_steps": 50}
    Path("run.yaml").write_text(yaml.safe_dump({**settings, "report_to": [], "use_cpu": True, "output_dir": "out"}))
    metrics = adapt("run.yaml", "--max_steps", "1", "--save_strategy", "no", "--learning_rate", "1e-3")
    assert 0 <= metrics["accuracy"] <= 1
    assert not list(Path("out").glob("checkpoint-*"))


def test_domain_adaptation_is_chosen_by_a_target(here):
    every = ["--eval_strategy", "steps", "--eval_steps", "1", "--save_steps", "1", "--load_best_model_at_end", "true"]
    rest = [word for word in QUICK if word not in ("--save_strategy", "no")]
    metrics = adapt(*DOMAIN, *rest, *every, "--objectives", "{cdan: {}, mcc: {}}", "--output_dir", "out")
    assert metrics.keys() == {"loss", "accuracy", "macro_f1", "information_maximization"}
    card = Path("out/model/README.md").read_text()
    assert "target, unlabelled" in card and "CDAN" in card and "MCC" in card


def test_views_and_converters_come_from_the_arguments(here):
    changes = ["--converters", "{stoch_norm: {p: 0.3, layer_norm: true}}", "--augmentation", "{magnitude: 0.2}"]
    adapt(*DOMAIN, *QUICK, *changes, "--objectives", "{fixmatch: {}}", "--output_dir", "out")
    _, report = AutoModelForImageClassification.from_pretrained("out/model", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    card = Path("out/model/README.md").read_text()
    assert "FixMatch" in card and "stoch_norm" in card


def test_numbers_are_predicted_and_their_errors_measured(here):
    rows = {"text": [text for text, _ in tiny.SENTENCES], "label": [len(text) / 80 for text, _ in tiny.SENTENCES]}
    Dataset.from_dict(rows).to_json("lengths.json")
    arguments = ["--model", "bert", "--task", "text-classification", "--dataset", "lengths.json", "--test_rows", "5"]
    metrics = adapt(*arguments, *QUICK, "--output_dir", "out")
    assert metrics.keys() == {"loss", "mean_squared_error", "mean_absolute_error", "r_squared"}
    config = AutoModelForSequenceClassification.from_pretrained("out/model").config
    assert config.num_labels == 1 and config.problem_type == "regression"


@pytest.mark.parametrize("start", ["vit", slow("three"), slow("headless"), "flow"])
def test_an_adapter_reads_back_with_its_head(here, start):
    lora = "{peft_type: LORA, r: 2, target_modules: all-linear}"
    arguments = ["--dataset", "digits", "--test_dataset", "digits", "--output_dir", "out", *QUICK]
    metrics = adapt("--model", start, *arguments, "--peft", lora, "--learning_rate", "0.05", "--max_steps", "4")
    names = {item.name for item in Path("out/model").iterdir()}
    assert "adapter_model.safetensors" in names and "model.safetensors" not in names
    assert run_evaluation("out/model", "digits") == pytest.approx(metrics)
    assert "AutoPeftModel" in Path("out/model/README.md").read_text()


def test_an_adapter_reads_back_as_its_card_says(here):
    arguments = ["--model", "three", "--dataset", "digits", "--output_dir", "out", *QUICK]
    adapt(*arguments, "--peft", "{peft_type: LORA, r: 2, target_modules: all-linear}")
    card = Path("out/model/README.md").read_text()
    (snippet,) = [part.split("```")[0] for part in card.split("```python\n")[1:]]
    names: dict = {}
    exec(snippet.replace('"out"', '"out/model"'), names)
    model = names["model"]
    assert model.get_base_model().classifier.original_module.out_features == 10


def test_domain_adaptation_of_an_adapter(here):
    lora = "{peft_type: LORA, r: 2, target_modules: all-linear}"
    metrics = adapt(*DOMAIN, *QUICK, "--objectives", "{dann: {}}", "--peft", lora, "--output_dir", "out")
    assert metrics["accuracy"] == read_results("out/model")["accuracy"]
    assert isinstance(AutoPeftModel.from_pretrained("out/model").peft_config["default"].r, int)


@pytest.mark.parametrize("model, words", [("bert", False), slow("gpt2", False), slow("bert", True)])
def test_text_classification_of_a_file(here, model, words):
    save_books(here / "named.csv", words=words)
    data = ["--dataset", "named.csv", "--test_dataset", "named.csv"]
    metrics = adapt("--model", model, *BOOKS, *data, "--output_dir", "out")
    saved = AutoModelForSequenceClassification.from_pretrained("out/model")
    assert saved.config.id2label[0] == ("alice" if words else "0")
    assert run_evaluation("out/model", "named.csv", task="text-classification") == pytest.approx(metrics)


def test_masked_images(here):
    small = {**ARCHITECTURE, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1}
    small |= {"decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}
    task = ["--task", "masked-image-modeling", "--architecture", json.dumps(small)]
    metrics = pretrain(*task, "--dataset", "digits", "--test_rows", "16", *QUICK, "--output_dir", "out")
    assert metrics.keys() == {"loss"} and metrics["loss"] > 0
    assert AutoModelForMaskedImageModeling.from_pretrained("out/model").config.hidden_size == 16
    adapted = adapt("--model", "out/model", *DIGITS[2:], "--output_dir", "next")
    assert 0 <= adapted["accuracy"] <= 1


@pytest.mark.parametrize(
    "task, loader", [("fill-mask", AutoModelForMaskedLM), ("text-generation", AutoModelForCausalLM)]
)
def test_language_modelling(here, task, loader):
    if task == "fill-mask":
        save_text_model(here / "lm", masked_lm(), mask_token="[MASK]")
    else:
        save_text_model(here / "lm", causal_lm())
    metrics = pretrain("--model", "lm", *BOOKS, "--task", task, "--output_dir", "out", "--learning_rate", "0.01")
    assert metrics.keys() == ({"loss", "perplexity"} if task == "text-generation" else {"loss"})
    assert 1 < metrics["loss"] < 10
    before, after = (loader.from_pretrained(folder).state_dict() for folder in ("lm", "out/model"))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_masks_need_a_mask_token(here, monkeypatch):
    no_training(monkeypatch)
    save_text_model(here / "lm", masked_lm())
    with pytest.raises(ValueError, match="mask token"):
        pretrain("--model", "lm", *BOOKS, "--task", "fill-mask", "--output_dir", "out")


def test_supervised_pretraining_is_adaptation(here):
    assert 0 <= pretrain(*DIGITS, "--output_dir", "out")["accuracy"] <= 1


def test_a_killed_run_goes_on_to_the_same_metrics_and_weights(here, one_thread):
    steps = ["--max_steps", "7", "--save_steps", "2", "--learning_rate", "0.01", "--logging_steps", "1"]
    rest = ["--per_device_train_batch_size", "8", "--report_to", "[]", "--use_cpu", "true", "--diagnostics", "false"]
    arguments = [*DOMAIN, *steps, *rest, "--objectives", "{cdan: {}, mcc: {}}", "--objective_warmup", "0.5"]
    straight = adapt(*arguments, "--output_dir", "straight")
    assert killed_at_step(5, *arguments, "--output_dir", "killed") == signal.SIGKILL
    assert sorted(item.name for item in Path("killed").iterdir()) == ["checkpoint-2", "checkpoint-4"]
    with pytest.raises(FileExistsError, match="`killed` holds checkpoints of an earlier run: go on with --resume"):
        adapt(*arguments, "--output_dir", "killed")
    assert adapt(*arguments, "--output_dir", "killed", "--resume", "true") == straight
    first, second = (load_file(f"{run}/model/model.safetensors") for run in ("straight", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_finished_run_is_neither_replaced_nor_repeated_unless_told(here):
    arguments = [*DIGITS, "--output_dir", "out"]
    first = adapt(*arguments)
    with pytest.raises(FileExistsError, match="`out` holds the model of an earlier run: .*--overwrite"):
        adapt(*arguments)
    assert adapt(*arguments, "--overwrite") == first


def test_overwriting_leaves_no_checkpoint_to_resume_from(here):
    arguments = [*DIGITS, "--output_dir", "out", "--save_strategy", "steps", "--save_steps", "2"]
    adapt(*arguments, "--max_steps", "4")
    assert Path("out/checkpoint-4").is_dir()
    adapt(*arguments, "--max_steps", "2", "--overwrite")
    assert [item.name for item in Path("out").glob("checkpoint-*")] == ["checkpoint-2"]


def test_a_mistake_found_late_destroys_nothing(here):
    arguments = [*DIGITS, "--output_dir", "out", "--save_strategy", "steps", "--save_steps", "2"]
    adapt(*arguments)
    with pytest.raises(ValueError, match="unknown objective `nope`"):
        adapt(*arguments, "--overwrite", "--objectives", "{nope: {}}")
    assert Path("out/checkpoint-2").is_dir() and Path("out/model").is_dir()


@pytest.mark.parametrize(
    "changes, error, message",
    [
        (["--objectives", "{nope: {}}"], ValueError, "unknown objective `nope`, accepted"),
        (["--objectives", "{mcc: 3}"], TypeError, "objective `mcc`: keywords should be a mapping"),
        (["--objectives", "{mcc: {temp: 3}}"], TypeError, "objective `mcc` has no keyword `temp`"),
        (["--objectives", "{mcc: {temperature: -1}}"], ValueError, "`temperature` should be positive"),
        (["--objectives", "{dann: {}}"], ValueError, "no `domain` column"),
        (["--task", "segmentation"], ValueError, "unknown task `segmentation`"),
        (["--dataset", "books.csv"], ValueError, "no tokenizer to read them"),
        (["--model", "bert"], ValueError, "`image` holds images, and a bert model reads none"),
        (["--model", "headless", "--task", "masked-image-modeling"], ValueError, "has no linear head"),
        (["--test_dataset", "unlabelled"], ValueError, "the test dataset has no label column"),
        (["--target_dataset", "no_rows"], ValueError, "cannot read `no_rows`: it has no rows"),
        (["--validator", "luck", "--target_dataset", "more_digits"], ValueError, "unknown validator `luck`"),
        (["--target_dataset", "nowhere"], ValueError, "cannot load the dataset `nowhere`"),
        (["--dataset", "nowhere.csv"], FileNotFoundError, r"no file `nowhere\.csv`"),
        (["--output_dir", "vit/config.json"], OSError, "config.json"),
        (["--test_rows", "1000"], ValueError, "`test_rows` should be less than the 80 rows"),
        (["--test_rows", "-1"], ValueError, "`test_rows` should be at least 0, got -1"),
        (["--labels_per_class", "0"], ValueError, "`labels_per_class` should be at least 1, got 0"),
    ],
)
def test_bad_input_is_refused_before_any_training(here, monkeypatch, changes, error, message):
    no_training(monkeypatch)
    if "no_rows" in changes:
        if Version(datasets.__version__) < Version("5"):
            pytest.skip("datasets 4 cannot write a folder without rows")
        digits().select(range(0)).save_to_disk("no_rows")
    digits().select(range(5)).remove_columns("label").save_to_disk("unlabelled")
    with pytest.raises(error, match=message):
        adapt(*DIGITS, "--output_dir", "out", *changes)


@pytest.mark.parametrize("settings", [{"hidden_size": 7}, {"num_labels": "ten"}])
def test_an_architecture_that_cannot_be_made_is_named(here, monkeypatch, settings):
    no_training(monkeypatch)
    architecture = json.dumps({"model_type": "vit", "image_size": 14, **settings})
    with pytest.raises(ValueError, match="`architecture`"):
        adapt("--architecture", architecture, "--dataset", "digits", "--output_dir", "out", *QUICK)


def test_pretraining_has_no_target(here, monkeypatch):
    no_training(monkeypatch)
    with pytest.raises(ValueError, match="`target_dataset` is for domain adaptation"):
        pretrain(*DOMAIN, "--task", "masked-image-modeling", "--output_dir", "out")


@pytest.mark.parametrize("labels", [[-3, 0], [0, 0], [-100, -100]])
def test_class_numbers_that_are_none_are_refused(here, monkeypatch, labels):
    no_training(monkeypatch)
    Dataset.from_dict({"text": ["Emma", "Alice"], "label": labels}).to_csv("odd.csv", index=False)
    with pytest.raises(ValueError, match="should number at least two classes from 0 on"):
        adapt("--model", "bert", "--task", "text-classification", "--dataset", "odd.csv", "--output_dir", "out")


@pytest.mark.parametrize(
    "changes, message",
    [
        (["--model", "empty_bert"], r"columns \['text'\] hold text, and the model's folder has no tokenizer"),
        (["--text_columns", "[prose]"], r"`text_columns` names \['prose'\], and the dataset has \['text', 'label'\]"),
    ],
)
def test_text_that_cannot_be_read_is_refused_before_any_training(here, monkeypatch, changes, message):
    no_training(monkeypatch)
    tiny.bert().save_pretrained("empty_bert")
    with pytest.raises(ValueError, match=message):
        adapt("--model", "bert", *BOOKS, "--output_dir", "out", *changes)


def test_the_best_checkpoint_needs_rows_to_choose_it_by(here, monkeypatch):
    no_training(monkeypatch)
    best = ["--load_best_model_at_end", "true", "--eval_strategy", "steps", "--save_strategy", "steps"]
    with pytest.raises(ValueError, match="`load_best_model_at_end` needs rows to evaluate on"):
        adapt("--model", "vit", "--dataset", "digits", *QUICK, *best, "--output_dir", "out")
