"""A training whose metric no longer improves ends, and a resumed one ends where the straight one did."""

import pytest

from hf_transfer.training.family_trainers import TaskAdaptationTrainer
from hf_transfer.training.trainer import TransferConfig
from tests import tiny
from tests.training.test_trainer import accuracy


def make(folder, digits, **changes) -> TaskAdaptationTrainer:
    """A trainer whose weights stay as they are, so that the first evaluation is the best of all."""
    args = TransferConfig(
        str(folder),
        max_steps=8,
        per_device_train_batch_size=8,
        learning_rate=0.0,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **changes,
    )
    rows = digits.select(range(16))
    return TaskAdaptationTrainer(tiny.vit(), args, train_dataset=rows, eval_dataset=rows, compute_metrics=accuracy)


def test_a_resumed_training_ends_where_the_straight_one_does(tmp_path, digits, caplog):
    straight = make(tmp_path, digits, early_stopping_patience=3)
    straight.train()
    assert straight.state.global_step == 4  # the best one, and three without a gain
    assert straight.state.best_global_step == 1
    straight.evaluate(metric_key_prefix="test")
    assert "early stopping is disabled" not in caplog.text

    resumed = make(tmp_path, digits, early_stopping_patience=3)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.state.global_step == 4

    finished = make(tmp_path, digits, early_stopping_patience=3)
    finished.train(resume_from_checkpoint=True)
    assert finished.state.global_step == 4 and "no step is left" in caplog.text

    patient = make(tmp_path, digits, early_stopping_patience=5)
    patient.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert patient.state.global_step == 6


def test_it_asks_for_what_it_watches(tmp_path):
    with pytest.raises(ValueError, match="`early_stopping_patience` watches the metric that chooses the checkpoint"):
        TransferConfig(str(tmp_path), early_stopping_patience=2)
    with pytest.raises(ValueError, match="`early_stopping_patience` should be at least 1, got 0"):
        TransferConfig(str(tmp_path), early_stopping_patience=0)
