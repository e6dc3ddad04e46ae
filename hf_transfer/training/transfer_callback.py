"""TransferCallback: what the steps of a TransferTrainer tell its model, its sampler and its objectives."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback

from hf_transfer.training.best_metric import check_best_metric
from hf_transfer.training.checkpoints import check_length


class TransferCallback(TrainerCallback):
    """Gives the model its progress, the sampler its epoch, and the objectives their step after the optimizer's."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if self.trainer.resumed_from is not None:
            is_constant = args.lr_scheduler_type.value.startswith("constant")
            follows_share = self.trainer.transfer_model.objectives or self.trainer.schedules
            check_length(self.trainer.resumed_from, state.max_steps, is_constant and not follows_share)
        check_best_metric(self.trainer)

    def on_epoch_begin(self, args, state, control, **kwargs):
        # On a resumed run with two processes accelerate's own set_epoch does not reach the sampler.
        if self.trainer.train_sampler is not None:
            self.trainer.train_sampler.set_epoch(math.floor((state.epoch or 0.0) + 1e-6))

    def on_step_begin(self, args, state, control, **kwargs):
        progress = min(1.0, state.global_step / max(1, state.max_steps))
        self.trainer.transfer_model.progress = progress
        self.trainer.transfer_model.frozen_modules = self.trainer.layer_freezing.update(progress)

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.transfer_model.after_step()

    def on_train_end(self, args, state, control, **kwargs):
        self.trainer.layer_freezing.end()
        self.trainer.transfer_model.frozen_modules = []
