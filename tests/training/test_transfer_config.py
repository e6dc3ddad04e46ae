"""What the settings of a TransferConfig do to the training."""

import pytest
import torch

from hf_transfer.data.samplers import ShuffleSampler
from hf_transfer.training.trainer import TransferConfig, TransferTrainer, torch_optimizer
from tests import tiny
from tests.training.test_trainer import Probe, config


def test_what_the_config_asks_where_nothing_is_said(tmp_path):
    args = TransferConfig(output_dir=str(tmp_path), use_cpu=True)
    expected = {
        "objectives": None,
        "schedules": None,
        "augmentation": None,
        "torch_optimizer": None,
        "validator": None,
        "head_learning_rate_multiplier": 1.0,
        "layer_learning_rate_decay": 1.0,
        "backbone_freeze_ratio": 0.0,
        "task_loss_weight": 1.0,
        "objective_warmup": 0.0,
        "source_holdout": 0.0,
    }
    assert {name: getattr(args, name) for name in expected} == expected


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"task_loss_weight": -0.1}, "`task_loss_weight` should be at least 0, got -0.1"),
        ({"objective_warmup": 1.1}, r"`objective_warmup` should be in \[0, 1\], got 1.1"),
        ({"objective_warmup": -0.1}, r"`objective_warmup` should be in \[0, 1\], got -0.1"),
        ({"source_holdout": -0.1}, r"`source_holdout` should be in \[0, 1\), got -0.1"),
        ({"head_learning_rate_multiplier": -1.0}, "`head_learning_rate_multiplier` should be positive, got -1.0"),
        ({"augmentation": "flip"}, "`augmentation` should be a mapping, .*got 'flip'"),
        ({"schedules": "ulmfit"}, "`schedules` should map names to keywords, .*got 'ulmfit'"),
        ({"schedules": {"ulmfits": {}}}, "unknown schedule `ulmfits`"),
        ({"torch_optimizer": "Best"}, r"`torch_optimizer` should be a class of torch\.optim, got 'Best'"),
        ({"torch_optimizer": "lr_scheduler"}, r"`torch_optimizer` should be a class of torch\.optim"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **changes)


def test_the_ends_of_the_ranges_are_accepted(tmp_path):
    assert config(tmp_path, task_loss_weight=0, objective_warmup=1).task_loss_weight == 0
    text = {"schedules": '{"ulmfit": {"decay": 2.0}}', "augmentation": '{"first": "weak"}'}
    args = config(tmp_path, **text)
    assert (args.schedules, args.augmentation) == ({"ulmfit": {"decay": 2.0}}, {"first": "weak"})


def test_the_logged_loss_is_the_weighted_sum_of_the_logged_terms(tmp_path, sentences):
    """Means over two steps each; the warm-up is the first half of the training."""
    torch.manual_seed(0)
    probe = Probe()
    args = config(
        tmp_path, max_steps=8, logging_steps=2, task_loss_weight=0.5, objective_warmup=0.5, learning_rate=0.0
    )
    trainer = TransferTrainer(tiny.bert(), args, train_dataset=sentences, objectives={"probe": probe})
    terms = []
    forward = trainer.transfer_model.forward
    trainer.transfer_model.forward = lambda **inputs: terms.append(forward(**inputs)) or terms[-1]
    trainer.train()
    ramps = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]
    losses = [0.5 * one.losses["task"].item() + ramp * one.losses["probe"].item() for one, ramp in zip(terms, ramps)]
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == 4
    for place, log in enumerate(logs):
        steps = slice(2 * place, 2 * place + 2)
        assert log["loss"] == pytest.approx(sum(losses[steps]) / 2, abs=1e-4)
        for name in ("task", "probe"):
            mean = sum(one.losses[name].item() for one in terms[steps]) / 2
            assert log[f"loss_{name}"] == pytest.approx(mean, abs=1e-6)


def test_a_loss_of_one_term_is_logged_once(tmp_path, sentences):
    trainer = TransferTrainer(tiny.bert(), config(tmp_path, max_steps=1), train_dataset=sentences)
    trainer.train()
    assert not [name for log in trainer.state.log_history for name in log if name.startswith("loss_")]


def test_optimizers_of_torch_by_their_name(tmp_path):
    adam = {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-5}
    args = config(tmp_path, torch_optimizer="RAdam", learning_rate=0.25, **adam)
    assert torch_optimizer(args) == (torch.optim.RAdam, {"lr": 0.25, "betas": (0.8, 0.95), "eps": 1e-5})
    args = config(tmp_path, torch_optimizer="SGD", learning_rate=0.25, **adam)
    assert torch_optimizer(args) == (torch.optim.SGD, {"lr": 0.25})
    assert type(TransferTrainer(tiny.vit(), args).create_optimizer()) is torch.optim.SGD


def test_the_order_of_the_rows_is_of_the_data_seed(tmp_path, digits):
    for changes, seed in (({"seed": 3}, 3), ({"seed": 3, "data_seed": 0}, 0), ({"seed": 3, "data_seed": 5}, 5)):
        trainer = TransferTrainer(tiny.vit(), config(tmp_path, **changes), train_dataset=digits)
        order = list(ShuffleSampler(64, seed))
        assert list(trainer._get_train_sampler()) == order
        rows = [row for batch in trainer._plain_dataloader() for row in batch["pixel_values"]]
        assert all(torch.equal(row, digits[place]["pixel_values"]) for row, place in zip(rows, order, strict=True))
