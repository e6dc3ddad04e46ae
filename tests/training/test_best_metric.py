"""Which checkpoint is the best: the way a metric is better, and a name that no evaluation has, told at once."""

import pytest
import torch
from torch import nn

from hf_transfer.training.best_metric import greater_is_better
from hf_transfer.training.family_trainers import DomainAdaptationTrainer, TaskAdaptationTrainer
from hf_transfer.training.trainer import TransferConfig
from tests import tiny
from tests.training.test_trainer import accuracy


def config(folder, metric, **changes) -> TransferConfig:
    settings = {"max_steps": 3, "per_device_train_batch_size": 8, "eval_strategy": "steps", "eval_steps": 1}
    settings |= {"save_steps": 1, "load_best_model_at_end": True, "report_to": [], "use_cpu": True}
    settings |= {"per_device_eval_batch_size": 4, "disable_tqdm": True, "metric_for_best_model": metric}
    return TransferConfig(str(folder), **{**settings, **changes})


def adaptation(folder, rows, metric, measure=accuracy, evaluation=None, **changes) -> TaskAdaptationTrainer:
    given = {"train_dataset": rows, "eval_dataset": rows if evaluation is None else evaluation}
    return TaskAdaptationTrainer(tiny.vit(), config(folder, metric, **changes), compute_metrics=measure, **given)


@pytest.mark.parametrize("metric", ["loss", "eval_mean_squared_error", "perplexity", "eval_probe_MAE", "mean_error"])
def test_less_of_an_error_is_better(metric):
    assert not greater_is_better(metric)


@pytest.mark.parametrize("metric", ["accuracy", "eval_macro_f1", "r_squared", "negative_mean_squared_error", "image"])
def test_more_of_others_is_better(metric):
    assert greater_is_better(metric)


def test_what_is_given_is_kept(tmp_path):
    assert config(tmp_path, "mean_error").greater_is_better is False
    assert config(tmp_path, "mean_error", greater_is_better=True).greater_is_better is True


def test_the_checkpoint_of_the_least_error_is_kept(tmp_path, digits):
    values = iter((9.0, 3.0, 1.0, 2.0))  # the first is of the check

    trainer = adaptation(tmp_path, digits.select(range(8)), "mean_error", lambda output: {"mean_error": next(values)})
    trainer.train()
    assert trainer.state.best_metric == 1.0
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")


def test_a_name_that_no_evaluation_has_is_told_before_the_first_step(tmp_path, digits):
    trainer = adaptation(tmp_path, digits.select(range(8)), "acuracy")
    with pytest.raises(ValueError, match=r"'acuracy', which no evaluation has: give one of \['accuracy', 'loss'\]"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_metric_of_the_last_rows_alone_is_found(tmp_path, digits):
    def of_many(output):
        return {"accuracy_of_nine": 1.0} if len(output.predictions) > 4 else {"accuracy": 1.0}

    trainer = adaptation(tmp_path, digits.select(range(8)), "accuracy_of_nine", of_many)
    trainer.train()
    assert trainer.state.best_metric == 1.0


def test_a_metric_of_one_of_several_sets(tmp_path, digits):
    sets = {"near": digits.select(range(8)), "far": digits.select(range(8, 16))}
    adaptation(tmp_path, digits.select(range(8)), "far_accuracy", evaluation=sets).train()
    with pytest.raises(ValueError, match="'accuracy'.*far_accuracy.*near_loss"):
        adaptation(tmp_path / "other", digits.select(range(8)), "accuracy", evaluation=sets).train()


def test_the_check_changes_nothing_of_the_training(tmp_path, digits, monkeypatch):
    def weights(folder):
        torch.manual_seed(0)
        model = tiny.vit(hidden_dropout_prob=0.3)
        args = config(folder, "accuracy", load_best_model_at_end=False, dataloader_num_workers=1)
        rows = digits.select(range(16))
        TaskAdaptationTrainer(model, args, train_dataset=rows, eval_dataset=rows, compute_metrics=accuracy).train()
        return nn.utils.parameters_to_vector(model.parameters())

    checked = weights(tmp_path / "checked")
    monkeypatch.setattr("hf_transfer.training.transfer_callback.check_best_metric", lambda trainer: None)
    assert checked.equal(weights(tmp_path / "unchecked"))


def test_a_validator_needs_no_rows_to_evaluate_on(tmp_path, digits):
    rows = {"train_dataset": digits.select(range(16)), "target_dataset": digits.select(range(16, 32))}
    args = config(tmp_path, None, save_only_model=True)
    trainer = DomainAdaptationTrainer(tiny.vit(), args, **rows)
    trainer.train()
    assert args.metric_for_best_model == trainer.own_metrics[0]
    wrong = DomainAdaptationTrainer(tiny.vit(), config(tmp_path / "other", "accuracy"), **rows)
    with pytest.raises(ValueError, match=r"'accuracy', which no evaluation has: give one of \['information_max"):
        wrong.train()


@pytest.mark.parametrize("kind", ["reduce_lr_on_plateau", "greedy"])
def test_a_rate_that_follows_a_metric_knows_which_way_it_is_better(tmp_path, digits, kind):
    rows = digits.select(range(8))
    for metric, mode in (("accuracy", "max"), ("loss", "min")):
        trainer = adaptation(tmp_path / metric, rows, metric, lr_scheduler_type=kind)
        trainer.train()
        assert trainer.lr_scheduler.mode == mode
    given = {"lr_scheduler_type": kind, "lr_scheduler_kwargs": {"mode": "min"}}
    trainer = adaptation(tmp_path / "given", rows, "accuracy", **given)
    trainer.train()
    assert trainer.lr_scheduler.mode == "min"


def test_the_rate_stays_while_the_accuracy_rises(tmp_path, digits):
    values = iter((0.0, 0.1, 0.2, 0.3, 0.4))
    watched = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 0}, "max_steps": 4}
    trainer = adaptation(
        tmp_path, digits.select(range(8)), "accuracy", lambda output: {"accuracy": next(values)}, **watched
    )
    trainer.train()
    assert trainer.optimizer.param_groups[0]["lr"] == trainer.args.learning_rate
