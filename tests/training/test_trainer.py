import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import AutoModelForImageClassification, DataCollatorWithPadding, HfArgumentParser, TrainerCallback

from hf_transfer.core.objective import IGNORED_LABEL, Objective
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
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


def test_rows_that_training_drops_or_mixes_are_measured_in_order(tmp_path, digits):
    loaders = {"dataloader_drop_last": True, "dataloader_in_order": False, "dataloader_num_workers": 2}
    args = config(tmp_path, per_device_train_batch_size=24, per_device_eval_batch_size=24, **loaders)
    trainer = TransferTrainer(tiny.vit(), args, train_dataset=digits, eval_dataset=digits)
    assert len(trainer.get_train_dataloader()) == 2 and len(trainer.get_eval_dataloader()) == 3
    assert trainer.get_train_dataloader().in_order is False and trainer.get_eval_dataloader().in_order is True
    assert trainer.predict(digits).predictions.shape == (64, 10)
    assert args.dataloader_drop_last is True and args.dataloader_in_order is False


def test_noisy_embeddings(tmp_path, sentences):
    """NEFTune finds the embeddings, changes what is learnt, and leaves no hook behind."""
    ends = []
    for alpha in (None, 5.0):
        torch.manual_seed(0)
        args = config(tmp_path, neftune_noise_alpha=alpha, max_steps=1)
        trainer = TransferTrainer(tiny.bert(), args, train_dataset=sentences, objectives={"bss": {}})
        trainer.train()
        ends.append(trainer.adapted_model.get_input_embeddings().weight.detach().clone())
        assert not trainer.adapted_model.get_input_embeddings()._forward_hooks
    assert not torch.equal(*ends)


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
