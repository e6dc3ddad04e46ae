"""What the trainer's callback passes on, without any training."""

from types import SimpleNamespace

import pytest
from transformers import TrainerState, TrainingArguments

from hf_transfer.training.transfer_callback import TransferCallback


class Recorder:
    """A trainer with its model, sampler and layer freezing in one, that writes down what it is told."""

    def __init__(self, objectives=(), schedules=(), resumed_from=None):
        self.objectives, self.schedules, self.resumed_from = list(objectives), list(schedules), resumed_from
        self.transfer_model = self.train_sampler = self.layer_freezing = self
        self.progress, self.frozen_modules, self.told = None, ["before"], []
        self.args = SimpleNamespace(metric_for_best_model=None)

    def set_epoch(self, epoch):
        self.told.append(("epoch", epoch))

    def update(self, progress):
        self.told.append(("freezing", progress))
        return ["embeddings"]

    def after_step(self):
        self.told.append("after_step")

    def end(self):
        self.told.append("end")


@pytest.mark.parametrize(
    ("kind", "objectives", "schedules", "is_constant"),
    [
        ("constant", [], [], True),
        ("constant_with_warmup", [], [], True),
        ("linear", [], [], False),
        ("constant", ["mcc"], [], False),
        ("constant", [], ["slanted"], False),
    ],
)
def test_what_a_resumed_run_of_another_length_may_be(tmp_path, monkeypatch, kind, objectives, schedules, is_constant):
    asked = []
    monkeypatch.setattr("hf_transfer.training.transfer_callback.check_length", lambda *given: asked.append(given))
    args = TrainingArguments(str(tmp_path), lr_scheduler_type=kind, use_cpu=True)
    state = TrainerState(max_steps=7)
    TransferCallback(Recorder(objectives, schedules, "checkpoint-3")).on_train_begin(args, state, None)
    assert asked == [("checkpoint-3", 7, is_constant)]
    TransferCallback(Recorder(objectives, schedules)).on_train_begin(args, state, None)
    assert len(asked) == 1


def test_the_epoch_reaches_the_sampler():
    trainer = Recorder()
    # of three thirds 0.9999999 is left
    for epoch in (None, 0.5, 0.9999999, 1.0, 1.99999, 2.999998):
        TransferCallback(trainer).on_epoch_begin(None, SimpleNamespace(epoch=epoch), None)
    assert [epoch for _, epoch in trainer.told] == [0, 0, 1, 1, 1, 2]
    trainer.train_sampler = None
    TransferCallback(trainer).on_epoch_begin(None, SimpleNamespace(epoch=1.0), None)


def test_the_share_of_the_training_reaches_model_and_layers():
    trainer = Recorder()
    callback = TransferCallback(trainer)
    for step, most in ((0, 4), (1, 4), (4, 4), (5, 4), (0, 0), (3, 0)):
        callback.on_step_begin(None, SimpleNamespace(global_step=step, max_steps=most), None)
        assert trainer.told[-1] == ("freezing", trainer.progress)
    assert [progress for _, progress in trainer.told] == [0.0, 0.25, 1.0, 1.0, 0.0, 1.0]
    assert trainer.frozen_modules == ["embeddings"]
    callback.on_step_end(None, None, None)
    callback.on_train_end(None, None, None)
    assert trainer.told[-2:] == ["after_step", "end"] and trainer.frozen_modules == []
