import pytest
import torch

from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny


def make(folder, rows, **settings) -> TransferTrainer:
    torch.manual_seed(0)
    args = TransferConfig(str(folder), report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no", **settings)
    return TransferTrainer(tiny.vit(), args, train_dataset=rows)


def test_everything_follows_from_the_rows(tmp_path, digits):
    trainer = make(tmp_path, digits.select(range(24)), hyper_rule="bit")
    args = trainer.args
    assert (args.max_steps, args.per_device_train_batch_size, args.weight_decay) == (500, 24, 0.0)
    assert args.learning_rate == 0.003  # of the batch that holds all rows
    trainer.create_optimizer_and_scheduler(500)
    assert type(trainer.optimizer) is torch.optim.SGD
    assert all(group["momentum"] == 0.9 and group["weight_decay"] == 0 for group in trainer.optimizer.param_groups)
    rates = []
    for _ in range(500):
        rates.append(trainer.optimizer.param_groups[0]["lr"] / args.learning_rate)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    expected = {0: 0.0, 50: 0.5, 100: 1.0, 199: 1.0, 200: 0.1, 299: 0.1, 300: 0.01, 400: 0.001, 499: 0.001}
    assert {step: rates[step] for step in expected} == pytest.approx(expected)


def test_what_the_user_gives_stays(tmp_path, digits):
    settings = {"max_steps": 4, "per_device_train_batch_size": 6, "learning_rate": 0.5, "torch_optimizer": "RAdam"}
    trainer = make(tmp_path, digits.select(range(24)), hyper_rule="bit", **settings)
    assert {name: getattr(trainer.args, name) for name in settings} == settings
    trainer.train()
    assert trainer.state.global_step == 4 and type(trainer.optimizer.optimizer) is torch.optim.RAdam


def test_a_smaller_batch_has_a_smaller_rate(tmp_path, digits):
    args = make(tmp_path, digits, hyper_rule="bit", per_device_train_batch_size=16).args
    assert args.learning_rate == pytest.approx(0.003 * 16 / 64)
    args = make(tmp_path, digits, hyper_rule="bit", per_device_train_batch_size=16, gradient_accumulation_steps=2).args
    assert args.learning_rate == pytest.approx(0.003 * 32 / 64)


def test_it_resumes_exactly(tmp_path, digits):
    settings = {"max_steps": 4, "hyper_rule": "bit", "learning_rate": 0.1}
    rows = digits.select(range(24))
    straight = make(tmp_path, rows, **settings)
    straight.args.save_strategy, straight.args.save_steps = "steps", 2
    straight.train()
    resumed = make(tmp_path, rows, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for one, other in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_without_a_rule_nothing_changes(tmp_path, digits):
    args = make(tmp_path, digits.select(range(24))).args
    assert args.max_steps == -1 and args.learning_rate == 5e-5 and args.schedules is None


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"hyper_rule": "bits"}, r"`hyper_rule` should be one of \['bit'\], got 'bits'"),
        ({"momentum": 1.0}, r"`momentum` should be in \[0, 1\), got 1.0"),
        ({"hyper_rule": "bit", "schedules": {"ulmfit": {}}}, "only one schedule may set the rate over time"),
    ],
)
def test_what_is_refused(tmp_path, digits, settings, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, digits.select(range(24)), **settings)
