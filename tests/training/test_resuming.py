"""A resumed training equals a straight one."""

import json
import shutil

import pytest
import torch

from hf_transfer.training.trainer import TransferTrainer, last_complete_checkpoint
from hf_transfer.training.transfer_model import TransferModel
from tests import tiny
from tests.marks import slow
from tests.training.test_trainer import ADVERSARIAL, Probe, assert_same, config, state_of


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


@pytest.mark.parametrize(
    "name, stop",
    [
        ("vit", 2),
        slow("vit", 4),
        ("vit", 5),
        slow("resnet", 5),
        ("flowformer", 5),
    ],
)
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
