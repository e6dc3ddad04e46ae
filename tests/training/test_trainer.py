import json
import math
import multiprocessing
import os
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import AutoModelForImageClassification, DataCollatorWithPadding, HfArgumentParser, TrainerCallback

from hf_transfer.core.objective import IGNORED_LABEL, Objective
from hf_transfer.training.trainer import TransferConfig, TransferTrainer, check_writable, last_complete_checkpoint
from hf_transfer.training.transfer_model import TransferModel
from tests import tiny

ADVERSARIAL = {"cdan": {"hidden_size": 8}, "mcc": {}, "dann": {"hidden_size": 8}}


def config(folder, **changes) -> TransferConfig:
    defaults = {
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "max_steps": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return TransferConfig(output_dir=str(folder), **{**defaults, **changes})


def state_of(trainer: TransferTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.transfer_model.state_dict().items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], **tolerance) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], **({"rtol": 0, "atol": 0} | tolerance), msg=name)


class Probe(Objective):
    """Writes down what it sees of every training batch; its loss pulls the features to a moving average."""

    paper = "none"
    needs = frozenset({"labels"})

    def __init__(self):
        super().__init__()
        self.progress, self.rows, self.steps = [], [], 0

    def build(self, context):
        self.register_buffer("average", torch.zeros(context.feature_dim))
        self.scale = torch.nn.Parameter(torch.ones(context.feature_dim))
        self.latest = self.average

    def forward(self, view):
        self.progress.append(view.progress)
        self.rows.append(next(iter(view.inputs.values())).flatten(1).sum(dim=1).tolist())
        self.latest = view.features.detach().mean(dim=0)
        return (view.features * self.scale - self.average).square().mean() * (1 + view.progress)

    def after_step(self, model):
        self.steps += 1
        self.average.mul_(0.9).add_(0.1 * self.latest)


# Gradient accumulation.


def first_gradients(trainer: TransferTrainer) -> dict[str, torch.Tensor]:
    """The gradients that the optimizer was given in its first step."""
    seen = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            if not seen:
                seen.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    trainer.add_callback(Keep())
    trainer.train()
    return seen


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_four_micro_batches_give_the_gradient_of_one_batch(tmp_path, sentences, name):
    torch.manual_seed(0)
    start = tiny.TEXT_MODELS[name]().state_dict()
    found = []
    for size, accumulation in ((8, 1), (2, 4)):
        model = tiny.TEXT_MODELS[name]()
        model.load_state_dict(start)
        args = config(
            tmp_path,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            max_grad_norm=0.0,
            train_sampling_strategy="sequential",
        )
        found.append(first_gradients(TransferTrainer(model, args, train_dataset=sentences)))
    assert_same(found[0], found[1], rtol=1e-4, atol=1e-7)

    reference = tiny.TEXT_MODELS[name]()
    reference.load_state_dict(start)
    batch = tiny.batch_of(sentences, 8)
    log_p = reference(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.log_softmax(dim=1)
    (-sum(log_p[row, label] for row, label in enumerate(batch["labels"])) / 8).backward()
    by_hand = {f"model.{n}": p.grad for n, p in reference.named_parameters() if p.grad is not None}
    assert_same(by_hand, found[0], rtol=1e-4, atol=1e-7)


def test_micro_batches_with_unequal_numbers_of_labels_weigh_every_label_the_same(tmp_path, sentences):
    """3 + 1 labelled rows in two micro-batches: the mean of means would count the single one three times."""
    rows = tiny.with_column(sentences, "labels", [0, 1, 2, IGNORED_LABEL, *[IGNORED_LABEL] * 3, 1, *[0] * 16])
    torch.manual_seed(0)
    start = tiny.bert().state_dict()
    found = []
    for size, accumulation in ((8, 1), (4, 2)):
        model = tiny.bert()
        model.load_state_dict(start)
        args = config(
            tmp_path,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            max_grad_norm=0.0,
            train_sampling_strategy="sequential",
        )
        found.append(first_gradients(TransferTrainer(model, args, train_dataset=rows)))
    assert_same(found[0], found[1], rtol=1e-4, atol=1e-7)


def test_the_logged_loss_is_the_mean_over_the_micro_batches(tmp_path, sentences):
    torch.manual_seed(0)
    model = tiny.bert()
    batch = tiny.batch_of(sentences, 8)
    expected = model(**batch).loss.item()
    args = config(
        tmp_path,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        max_steps=1,
        train_sampling_strategy="sequential",
    )
    trainer = TransferTrainer(model, args, train_dataset=sentences, objectives={"probe": Probe()})
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["loss_task"] == pytest.approx(expected, abs=1e-5)
    assert log["loss"] == pytest.approx(log["loss_task"] + log["loss_probe"], abs=1e-5)


def test_a_loss_of_one_term_is_logged_once(tmp_path, sentences):
    trainer = TransferTrainer(tiny.bert(), config(tmp_path, max_steps=1), train_dataset=sentences)
    trainer.train()
    assert not any(name.startswith("loss_") for log in trainer.state.log_history for name in log)


# Resuming.


def straight_and_resumed(tmp_path, make, stop: int, **changes):
    """A run to its end, and the same run cut after `stop` steps and gone on with in a new trainer."""
    args = {"save_strategy": "steps", "save_steps": stop, **changes}
    straight = make(config(tmp_path / "straight", **args))
    straight.train()
    shutil.copytree(tmp_path / "straight" / f"checkpoint-{stop}", tmp_path / "resumed" / f"checkpoint-{stop}")
    torch.manual_seed(1234)
    resumed = make(config(tmp_path / "resumed", **args))
    for parameter in resumed.transfer_model.parameters():
        torch.nn.init.normal_(parameter)  # whatever is not restored shows
    resumed.train(resume_from_checkpoint=True)
    return straight, resumed


@pytest.mark.parametrize("name, stop", [("vit", 2), ("vit", 4), ("vit", 5), ("resnet", 5), ("flowformer", 5)])
def test_a_resumed_run_equals_a_straight_one(tmp_path, digit_domains, name, stop):
    """32 rows a domain in batches of 8 + 8: epochs end after 4 steps, which the stops precede, meet and follow."""

    def make(args):
        torch.manual_seed(0)
        objectives = {**ADVERSARIAL, "l2_sp": {}, "probe": Probe()}
        return TransferTrainer(tiny.IMAGE_MODELS[name](), args, train_dataset=digit_domains, objectives=objectives)

    straight, resumed = straight_and_resumed(
        tmp_path, make, stop, max_steps=10, per_device_train_batch_size=16, lr_scheduler_type="cosine"
    )
    assert_same(state_of(straight), state_of(resumed))
    before, after = (trainer.transfer_model.objectives["probe"] for trainer in (straight, resumed))
    assert before.progress == [step / 10 for step in range(10)]
    assert after.progress == before.progress[stop:]
    assert after.rows == before.rows[stop:]
    assert before.rows[:4] != before.rows[4:8], "another order in the second epoch"
    straight_logs = [log for log in straight.state.log_history if "loss" in log][stop:]
    assert [log["loss"] for log in straight_logs] == [
        log["loss"] for log in resumed.state.log_history if "loss" in log
    ][stop:]


def test_a_resumed_run_equals_a_straight_one_with_accumulation_dropout_and_peft(tmp_path, sentences):
    start = tiny.bert().state_dict()

    def make(args):
        torch.manual_seed(0)
        base = tiny.bert(hidden_dropout_prob=0.3)
        base.load_state_dict(start)
        model = tiny.with_lora(base, lora_dropout=0.3)
        return TransferTrainer(model, args, train_dataset=sentences, objectives={"probe": Probe(), "bss": {}})

    args = {"max_steps": 6, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    torch.manual_seed(0)
    straight = make(config(tmp_path / "straight", save_strategy="steps", save_steps=2, **args))
    straight.train()
    shutil.copytree(tmp_path / "straight" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    torch.manual_seed(99)
    resumed = make(config(tmp_path / "resumed", save_strategy="steps", save_steps=2, **args))
    resumed.train(resume_from_checkpoint=True)
    assert_same(state_of(straight), state_of(resumed))
    assert resumed.transfer_model.objectives["probe"].steps == 4


def test_every_epoch_has_another_order(tmp_path, digits):
    probe = Probe()
    args = config(tmp_path, max_steps=16)
    TransferTrainer(tiny.vit(), args, train_dataset=digits, objectives={"probe": probe}).train()
    first, second = ([row for batch in batches for row in batch] for batches in (probe.rows[:8], probe.rows[8:]))
    assert first != second
    assert sorted(first) == sorted(second)


@pytest.mark.parametrize("stop", [2, 6])
def test_resuming_with_the_best_model_at_the_end(tmp_path, digits, stop):
    def make(args):
        torch.manual_seed(0)
        objectives = {"probe": Probe(), "bss": {}}
        rows = digits.select(range(16))
        return TransferTrainer(tiny.vit(), args, train_dataset=digits, eval_dataset=rows, objectives=objectives)

    changes = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "load_best_model_at_end": True,
        "max_steps": 8,
        "learning_rate": 0.5,
    }
    straight = make(config(tmp_path / "straight", save_strategy="steps", **changes))
    straight.train()
    losses = {log["step"]: log["eval_loss"] for log in straight.state.log_history if "eval_loss" in log}
    best = min(losses, key=losses.get)
    assert best != 8, "the rate is so high that an early checkpoint is the best"
    assert straight.state.best_model_checkpoint.endswith(f"checkpoint-{best}")
    chosen = TransferModel(tiny.vit(), {"probe": Probe(), "bss": straight.transfer_model.objectives["bss"]})
    chosen.load_weights(straight.state.best_model_checkpoint)
    assert_same({n: v.clone() for n, v in chosen.state_dict().items()}, state_of(straight))

    for step in (2, 4, 6, 8):
        if step <= stop:
            shutil.copytree(tmp_path / "straight" / f"checkpoint-{step}", tmp_path / "resumed" / f"checkpoint-{step}")
    resumed = make(config(tmp_path / "resumed", save_strategy="steps", **changes))
    resumed.train(resume_from_checkpoint=True)
    assert_same(state_of(straight), state_of(resumed))
    assert resumed.state.best_metric == straight.state.best_metric


@pytest.mark.parametrize("damage", ["truncated", "deleted"])
def test_a_checkpoint_whose_writing_was_cut_short_is_passed_over(tmp_path, digits, damage):
    def make(folder):
        torch.manual_seed(0)
        args = config(folder, save_strategy="steps", save_steps=2, max_steps=6)
        return TransferTrainer(tiny.vit(), args, train_dataset=digits, objectives={"probe": Probe()})

    straight = make(tmp_path / "straight")
    straight.train()
    killed = make(tmp_path / "killed")
    killed.train()
    shutil.rmtree(tmp_path / "killed" / "checkpoint-6")
    state = tmp_path / "killed" / "checkpoint-4" / "trainer_state.json"
    if damage == "deleted":
        state.unlink()
    else:
        state.write_text(state.read_text()[:-20])
    assert last_complete_checkpoint(tmp_path / "killed").endswith("checkpoint-2")
    again = make(tmp_path / "killed")
    again.train(resume_from_checkpoint=True)
    assert_same(state_of(straight), state_of(again))
    assert len(again.transfer_model.objectives["probe"].progress) == 4
    assert json.loads(state.read_text())["global_step"] == 4, "the cut checkpoint was written anew"


def test_a_rewritten_checkpoint_is_incomplete_until_its_end(tmp_path, digits, monkeypatch):
    """A second run over an old folder is killed in the middle of checkpoint-2: new weights, old state."""
    args = config(tmp_path, save_strategy="steps", save_steps=2, max_steps=2)
    TransferTrainer(tiny.vit(), args, train_dataset=digits).train()
    assert last_complete_checkpoint(tmp_path).endswith("checkpoint-2")

    def killed(*_):
        raise KeyboardInterrupt

    second = TransferTrainer(tiny.vit(), args, train_dataset=digits)
    monkeypatch.setattr(second, "_save_optimizer_and_scheduler", killed)
    with pytest.raises(KeyboardInterrupt):
        second.train()
    assert last_complete_checkpoint(tmp_path) is None


def test_resuming_without_any_checkpoint_starts(tmp_path, digits):
    trainer = TransferTrainer(tiny.vit(), config(tmp_path, max_steps=2), train_dataset=digits)
    assert trainer.train(resume_from_checkpoint=True).global_step == 2
    assert last_complete_checkpoint(tmp_path / "nowhere") is None


def test_the_newest_checkpoint_is_the_one_with_the_most_steps(tmp_path):
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-best", "checkpoint-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text("{}")
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_objectives_prepare_once_and_not_again_when_resuming(tmp_path, digits):
    class Prepared(Probe):
        calls = 0

        def prepare(self, model, dataloader):
            Prepared.calls += 1
            self.seen = sum(len(batch["labels"]) for batch in dataloader)

    args = config(tmp_path, save_strategy="steps", save_steps=2, max_steps=3)
    trainer = TransferTrainer(tiny.vit(), args, train_dataset=digits, objectives={"one": Prepared()})
    trainer.train()
    assert Prepared.calls == 1 and trainer.transfer_model.objectives["one"].seen == len(digits)
    args = config(tmp_path, max_steps=3)
    resumed = TransferTrainer(tiny.vit(), args, train_dataset=digits, objectives={"one": Prepared()})
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert Prepared.calls == 1


# Evaluation, precision, folders.


def accuracy(prediction) -> dict[str, float]:
    return {"accuracy": float((np.asarray(prediction.predictions).argmax(-1) == prediction.label_ids).mean())}


def test_evaluation_is_the_task_alone(tmp_path, digits):
    probe = Probe()
    model = tiny.vit()
    trainer = TransferTrainer(
        model,
        config(tmp_path, per_device_eval_batch_size=5),
        train_dataset=digits,
        eval_dataset=digits,
        objectives={"probe": probe},
        compute_metrics=accuracy,
    )
    metrics = trainer.evaluate()
    assert probe.progress == []
    batch = tiny.batch_of(digits, 64)
    with torch.no_grad():
        logits = model.eval()(batch["pixel_values"]).logits
    assert metrics["eval_accuracy"] == (logits.argmax(dim=1) == batch["labels"]).float().mean().item()
    assert trainer.predict(digits).predictions == pytest.approx(logits.numpy(), abs=1e-6)
    whole = config(tmp_path, per_device_eval_batch_size=64)
    loss = TransferTrainer(model, whole, eval_dataset=digits).evaluate()["eval_loss"]
    assert loss == pytest.approx(F.cross_entropy(logits, batch["labels"]).item(), abs=1e-5)


def test_prediction_needs_no_labels(tmp_path, digits):
    trainer = TransferTrainer(tiny.vit(), config(tmp_path))
    output = trainer.predict(digits.remove_columns("labels"))
    assert output.predictions.shape == (64, 10)
    assert output.label_ids is None


def test_training_learns_and_the_folder_is_the_model(tmp_path, digits):
    torch.manual_seed(0)
    args = config(tmp_path / "out", max_steps=40, logging_steps=30, save_strategy="no")
    trainer = TransferTrainer(
        tiny.resnet(),
        args,
        train_dataset=digits,
        eval_dataset=digits,
        compute_metrics=accuracy,
        objectives={"bss": {}},
    )
    before = trainer.evaluate()["eval_accuracy"]
    trainer.train()
    after = trainer.evaluate()["eval_accuracy"]
    assert after > before + 0.3
    trainer.save_model(tmp_path / "saved")
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "saved").eval()
    batch = tiny.batch_of(digits, 64)
    right = loaded(batch["pixel_values"]).logits.argmax(dim=1) == batch["labels"]
    assert right.float().mean().item() == after


def test_bfloat16_trains_with_objectives_in_float32(tmp_path, digit_domains):
    class Types(Probe):
        def forward(self, view):
            self.types = {view.features.dtype, view.logits.dtype, (view.features @ view.features.T).dtype}
            return super().forward(view)

    types = Types()
    seen = set()
    model = tiny.vit()
    model.classifier.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    trainer = TransferTrainer(
        model, config(tmp_path, bf16=True), train_dataset=digit_domains, objectives={"types": types, **ADVERSARIAL}
    )
    trainer.train()
    assert seen == {torch.bfloat16}, "the model itself runs in bfloat16"
    assert types.types == {torch.float32}
    losses = [value for log in trainer.state.log_history for name, value in log.items() if name.startswith("loss")]
    assert len(losses) == 4 * 6 and all(map(math.isfinite, losses))
    assert model.classifier.weight.dtype == torch.float32


def test_gradient_checkpointing_changes_no_result(tmp_path, sentences):
    torch.manual_seed(0)
    start = tiny.bert().state_dict()
    ends = []
    for on in (False, True):
        model = tiny.bert()
        model.load_state_dict(start)
        args = config(tmp_path, gradient_checkpointing=on, max_steps=2)
        trainer = TransferTrainer(model, args, train_dataset=sentences, objectives={"bss": {}})
        trainer.train()
        assert model.is_gradient_checkpointing == on
        ends.append(state_of(trainer))
    assert_same(ends[0], ends[1], rtol=1e-4, atol=1e-6)


def test_text_of_different_lengths_is_padded_by_the_collator(tmp_path):
    reader = tiny.tokenizer()
    texts = [text for text, _ in tiny.SENTENCES]
    rows = Dataset.from_dict({**reader(texts), "text": texts, "label": [book for _, book in tiny.SENTENCES]})
    collator = DataCollatorWithPadding(reader)
    trainer = TransferTrainer(
        tiny.bert(), config(tmp_path), train_dataset=rows, eval_dataset=rows, data_collator=collator
    )
    trainer.train()
    assert math.isfinite(trainer.evaluate()["eval_loss"])
    trainer.save_model(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").is_file()


def test_label_smoothing_comes_from_the_arguments(tmp_path, sentences):
    trainer = TransferTrainer(tiny.bert(), config(tmp_path, label_smoothing_factor=0.2), train_dataset=sentences)
    assert trainer.transfer_model.label_smoothing == 0.2
    trainer.train()
    assert math.isfinite(trainer.state.log_history[0]["loss"])


def test_a_regression_trains(tmp_path, sentences):
    rows = tiny.with_column(sentences, "labels", [float(book) for book in sentences.with_format(None)["labels"]])
    model = tiny.bert(num_labels=1)
    trainer = TransferTrainer(model, config(tmp_path, max_steps=30), train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before


def test_multi_label_classification_trains(tmp_path, sentences):
    several = [[float(book == 0), float(book != 1), 1.0] for book in sentences.with_format(None)["labels"]]
    rows = tiny.with_column(sentences, "labels", several)
    model = tiny.bert(problem_type="multi_label_classification")
    trainer = TransferTrainer(model, config(tmp_path, max_steps=30), train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before


def test_the_head_learns_faster_where_asked(tmp_path, digits):
    model = tiny.vit()
    args = config(tmp_path, head_learning_rate_multiplier=10, weight_decay=0.1, learning_rate=1e-3)
    trainer = TransferTrainer(model, args, train_dataset=digits, objectives={"probe": Probe()})
    groups = trainer.create_optimizer().param_groups
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    named = dict(trainer.model.named_parameters())
    assert rates.keys() == {id(p) for p in named.values()}
    assert rates[id(model.classifier.weight)] == (1e-2, 0.1)
    assert rates[id(model.classifier.bias)] == (1e-2, 0.0)
    assert rates[id(named["objectives.probe.scale"])][0] == 1e-2
    backbone = {rates[id(p)][0] for name, p in named.items() if name.startswith("model.vit")}
    assert backbone == {1e-3}


def test_several_gpus_without_a_launcher_use_one(tmp_path, digits):
    """DataParallel's threads would share the hook that reads the features."""
    args = config(tmp_path)
    assert args.device.type == "cpu"
    args._n_gpu = 2
    trainer = TransferTrainer(tiny.vit(), args, train_dataset=digits)
    assert trainer.args.n_gpu == 1 and trainer.args.train_batch_size == 8


def test_pushing_asks_the_hub_for_the_repository(tmp_path, digits, monkeypatch):
    asked = {}

    class Api:
        def create_repo(self, name, **kwargs):
            asked.update(name=name, **kwargs)
            return type("Url", (), {"repo_id": f"reader/{name}"})()

    monkeypatch.setattr("transformers.trainer.hf_api", Api)
    args = config(tmp_path, push_to_hub=True, hub_model_id="digits", hub_private_repo=True)
    trainer = TransferTrainer(tiny.vit(), args, train_dataset=digits)
    assert asked["name"] == "digits" and asked["private"] is True
    assert trainer.hub_model_id == "reader/digits"


# The config.


def test_objectives_come_from_the_command_line_and_from_yaml(tmp_path):
    parser = HfArgumentParser(TransferConfig)
    line = ["--output_dir", str(tmp_path), "--use_cpu", "--objectives", '{"mcc": {"temperature": 1.5}, "dann": null}']
    (args,) = parser.parse_args_into_dataclasses(line)
    assert args.objectives == {"mcc": {"temperature": 1.5}, "dann": None}
    yaml = tmp_path / "run.yaml"
    yaml.write_text(
        f"output_dir: {tmp_path}\nuse_cpu: true\nhead_learning_rate_multiplier: 10\nobjectives:\n"
        "  cdan: {}\n  mcc: {temperature: 2.5}\n"
    )
    (args,) = parser.parse_yaml_file(str(yaml))
    assert args.objectives == {"cdan": {}, "mcc": {"temperature": 2.5}}
    assert args.head_learning_rate_multiplier == 10
    assert json.loads(args.to_json_string())["objectives"]["mcc"] == {"temperature": 2.5}


@pytest.mark.parametrize("given", ["cdan", ["cdan", "mcc"], 3])
def test_objectives_that_are_no_mapping_are_refused(tmp_path, given):
    with pytest.raises(ValueError, match="`objectives` should map names to keywords"):
        config(tmp_path, objectives=given)


def test_a_multiplier_that_is_not_positive_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`head_learning_rate_multiplier` should be positive, got 0"):
        config(tmp_path, head_learning_rate_multiplier=0)


# Bad input: each is refused before any training.


def test_no_label_column(tmp_path, sentences):
    rows = sentences.rename_column("labels", "book")
    with pytest.raises(ValueError, match=r"training dataset has no label column: .*\n?.*rename_column"):
        TransferTrainer(tiny.bert(), config(tmp_path), train_dataset=rows)


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_outside_the_classes(tmp_path, sentences, label):
    rows = tiny.with_column(sentences, "labels", [label] + [0] * 23)
    with pytest.raises(ValueError, match=rf"training dataset holds labels outside 0\.\.2: \[{label}\]"):
        TransferTrainer(tiny.bert(), config(tmp_path), train_dataset=rows)


def test_a_label_outside_the_classes_of_the_evaluation_set(tmp_path, sentences):
    rows = tiny.with_column(sentences, "labels", [3] + [0] * 23)
    with pytest.raises(ValueError, match=r"evaluation dataset holds labels outside 0\.\.2: \[3\]"):
        TransferTrainer(tiny.bert(), config(tmp_path), train_dataset=sentences, eval_dataset=rows)
    with pytest.raises(ValueError, match=r"evaluation \(late\) dataset holds labels outside 0\.\.2: \[3\]"):
        TransferTrainer(tiny.bert(), config(tmp_path), train_dataset=sentences, eval_dataset={"late": rows})


def test_labels_that_are_no_numbers(tmp_path, sentences):
    rows = tiny.with_column(sentences, "labels", ["Emma"] * 24)
    with pytest.raises(ValueError, match=r"should hold class numbers, got .*class_encode_column"):
        TransferTrainer(tiny.bert(), config(tmp_path), train_dataset=rows)


def test_one_domain_missing(tmp_path, digits):
    spec = {"mcc": {}}
    with pytest.raises(ValueError, match="compare two domains and the training dataset has no `domain` column"):
        TransferTrainer(tiny.vit(), config(tmp_path), train_dataset=digits, objectives=spec)
    source = tiny.with_column(digits, "domain", [0] * 64)
    with pytest.raises(ValueError, match=r"both 0 \(source\) and 1 \(target\), got only \[0\]"):
        TransferTrainer(tiny.vit(), config(tmp_path), train_dataset=source, objectives=spec)


def test_an_unknown_objective_or_keyword(tmp_path, digits):
    with pytest.raises(ValueError, match="unknown objective `bbs`, accepted"):
        TransferTrainer(tiny.vit(), config(tmp_path, objectives={"bbs": {}}), train_dataset=digits)
    with pytest.raises(TypeError, match=r"objective `bss`: .*'kk'"):
        TransferTrainer(tiny.vit(), config(tmp_path, objectives={"bss": {"kk": 2}}), train_dataset=digits)


def test_a_model_without_a_linear_head(tmp_path, digits):
    with pytest.raises(ValueError, match="ViTModel has no head: it is a backbone alone"):
        TransferTrainer(tiny.vit().vit, config(tmp_path), train_dataset=digits)


def test_an_empty_dataset(tmp_path, digits):
    with pytest.raises(ValueError, match="the training dataset is empty"):
        TransferTrainer(tiny.vit(), config(tmp_path), train_dataset=digits.select([]))
    with pytest.raises(ValueError, match="the evaluation dataset is empty"):
        TransferTrainer(tiny.vit(), config(tmp_path), train_dataset=digits, eval_dataset=digits.select([]))


def test_a_dataset_of_another_library(tmp_path):
    with pytest.raises(TypeError, match=r"`train_dataset` should be a datasets\.Dataset, got list"):
        TransferTrainer(tiny.vit(), config(tmp_path), train_dataset=[1, 2])


def test_plain_training_arguments(tmp_path):
    from transformers import TrainingArguments

    with pytest.raises(TypeError, match="`args` should be a TransferConfig, got TrainingArguments"):
        TransferTrainer(tiny.vit(), TrainingArguments(output_dir=str(tmp_path), use_cpu=True))


def test_objectives_in_two_places(tmp_path):
    with pytest.raises(ValueError, match="to the TransferModel or to the trainer, not to both"):
        TransferTrainer(TransferModel(tiny.vit()), config(tmp_path), objectives={"bss": {}})


def test_an_output_folder_under_a_file(tmp_path):
    (tmp_path / "notes").write_text("text")
    with pytest.raises(NotADirectoryError, match=r"notes is a file\. Choose another"):
        TransferTrainer(tiny.vit(), config(tmp_path / "notes" / "run"))


def _write_as_nobody(folder: str, answer) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        check_writable(folder)
        answer.send("accepted")
    except PermissionError as error:
        answer.send(str(error))


def test_an_output_folder_without_permission(tmp_path):
    """Asked by a process of another user, since root may write everywhere."""
    tmp_path.chmod(0o555)
    for parent in tmp_path.parents[:3]:
        parent.chmod(0o755)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_write_as_nobody, args=(str(tmp_path / "run"), there))
    process.start()
    process.join(20)
    assert here.poll(1)
    assert (
        here.recv()
        == f"cannot write to `{tmp_path / 'run'}`: no permission on {tmp_path}. Choose another output folder."
    )
