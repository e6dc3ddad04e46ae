"""TransferConfig: TrainingArguments plus what transfer needs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from transformers import TrainingArguments

from hf_transfer.task_adaptation.schedule import make_schedules
from hf_transfer.training.best_metric import greater_is_better
from hf_transfer.training.muon import NAME as MUON
from hf_transfer.training.muon import MuonWithAdamW
from hf_transfer.training.trackers import check_trackers

HYPER_RULES = {"bit": "bit_hyper_rule"}
"""What `hyper_rule` may be, and the schedule that it brings."""
SEEDS = ("seed", "data_seed")
LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_steps": -1,
    "num_train_epochs": 0,
    "learning_rate": 0,
    "weight_decay": 0,
    "adam_beta1": 0,
    "adam_beta2": 0,
    "adam_epsilon": 0,
    "max_grad_norm": 0,
    "warmup_steps": 0,
    "dataloader_num_workers": 0,
    "early_stopping_patience": 1,
}
"""The least value of arguments of every training."""


@dataclass
class TransferConfig(TrainingArguments):
    """TrainingArguments plus what transfer needs; every field works from YAML and from the command line.

    Raises:
        ValueError: a value out of range, or `objectives` that is not a mapping.
    """

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "objectives", "schedules", "augmentation"]

    objectives: dict | str | None = field(
        default=None,
        metadata={
            "help": 'Loss terms by name with their keywords, e.g. \'{"cdan": {}, "mcc": {"temperature": 2.5}}\'.'
        },
    )
    head_learning_rate_multiplier: float = field(
        default=1.0,
        metadata={"help": "Learning rate of everything outside the backbone over the backbone's; 10 is usual."},
    )
    layer_learning_rate_decay: float = field(
        default=1.0,
        metadata={"help": "Factor of the learning rate from each layer to the one below it, the head on top."},
    )
    backbone_freeze_ratio: float = field(
        default=0.0,
        metadata={
            "help": "Share of the training in which only the head trains: 1 is feature transfer, 0.3 a linear probe "
            "and then fine-tuning."
        },
    )
    schedules: dict | str | None = field(
        default=None,
        metadata={"help": 'Schedules of layers by name with their keywords, e.g. \'{"ulmfit": {"decay": 2.6}}\'.'},
    )
    readout: str | None = field(
        default=None,
        metadata={
            "help": "What of the model's outputs the objectives see, where it is not the usual: a key of "
            "hf_transfer.modeling.readouts.READOUTS, such as `pictures` for a detector, or the name of an output."
        },
    )
    fourier_adaptation: float | None = field(
        default=None,
        metadata={
            "help": "Give source pictures the low frequencies of target pictures, up to so large a share of the "
            "smaller side (Fourier domain adaptation): 0.01 for pictures of 512 pixels and more, 0.05 for small ones."
        },
    )
    task_loss_weight: float = field(
        default=1.0, metadata={"help": "Weight of the task loss beside the objectives; 0 trains on these alone."}
    )
    objective_warmup: float = field(
        default=0.0,
        metadata={"help": "Share of the training over which the weights of the objectives grow linearly from 0."},
    )
    augmentation: dict | str | None = field(
        default=None,
        metadata={
            "help": "Random changes of the training rows, {} for the usual ones of their kind: keywords of "
            "ImageAugmentation, TextAugmentation or SeriesAugmentation, and {first: weak, second: strong} for the "
            "rows and their second view; or {views: moco_v2}, two views of images as self-supervised methods have "
            "them (moco_v3, simclr, small, mae), and keywords of ImageViews. Without it only objectives that compare "
            "two views augment."
        },
    )
    torch_optimizer: str | None = field(
        default=None,
        metadata={
            "help": "Class of torch.optim to use instead of `optim`, for those that it does not name: RAdam; or "
            "Muon, for the matrices of hidden layers, with AdamW for the rest."
        },
    )
    stop_on_collapse: bool = field(
        default=False,
        metadata={
            "help": "Self-supervised pre-training: end the training at an evaluation that finds the features of all "
            "rows nearly alike. A warning tells of it either way."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "End the training when the metric that chooses the checkpoint (`load_best_model_at_end`) has not "
            "improved for so many evaluations."
        },
    )
    momentum: float = field(
        default=0.0, metadata={"help": "Of a `torch_optimizer` that has one, SGD or RMSprop; .9 is usual."}
    )
    hyper_rule: str | None = field(
        default=None,
        metadata={
            "help": "Steps, batch, learning rate, its schedule and SGD by the number of training rows, as far as they "
            "are not given: bit, the rule of Big Transfer."
        },
    )
    source_holdout: float = field(
        default=0.0,
        metadata={
            "help": "Domain adaptation: share of the source that is not trained on, for the validators that read its "
            "labels (dev, dd, mdd, source_accuracy, source_risk); at 0 they read training rows, where a model looks "
            "better than it is."
        },
    )
    validation_rows: int = field(
        default=2000,
        metadata={
            "help": "Domain adaptation: at most so many rows of each domain are scored, once, by validators and guard "
            "and for the pictures; fewer make the end of a run quicker and the scores less certain."
        },
    )
    validator: str | None = field(
        default=None,
        metadata={
            "help": "Score that chooses the checkpoint in domain adaptation without target labels; left out, "
            "information_maximization for classes and dev for numbers."
        },
    )

    def __post_init__(self):
        check_numbers(self)
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            self.greater_is_better = greater_is_better(self.metric_for_best_model)
        super().__post_init__()
        check_trackers(self.report_to)
        if self.objectives is not None and not isinstance(self.objectives, Mapping):
            raise ValueError(
                "`objectives` should map names to keywords, such as "
                f'{{"cdan": {{}}, "mcc": {{"temperature": 2.5}}}}, got {self.objectives!r}.'
            )
        if self.schedules is not None and not isinstance(self.schedules, Mapping):
            raise ValueError(
                f'`schedules` should map names to keywords, such as {{"ulmfit": {{}}}}, got {self.schedules!r}.'
            )
        make_schedules(self.schedules, self.layer_learning_rate_decay, self.backbone_freeze_ratio)
        if self.task_loss_weight < 0:
            raise ValueError(f"`task_loss_weight` should be at least 0, got {self.task_loss_weight}.")
        if self.augmentation is not None and not isinstance(self.augmentation, Mapping):
            raise ValueError(
                f'`augmentation` should be a mapping, such as {{"flip": True}}, got {self.augmentation!r}.'
            )
        if self.torch_optimizer is not None and not isinstance(getattr(torch.optim, self.torch_optimizer, None), type):
            raise ValueError(f"`torch_optimizer` should be a class of torch.optim, got {self.torch_optimizer!r}.")
        if self.stop_on_collapse and self.eval_strategy == "no":
            raise ValueError(
                "`stop_on_collapse` looks at evaluations: give an `eval_strategy`, such as steps or epoch."
            )
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            raise ValueError(
                "`early_stopping_patience` watches the metric that chooses the checkpoint: give "
                "`load_best_model_at_end: true`, and `metric_for_best_model` where it is not the loss."
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"`momentum` should be in [0, 1), got {self.momentum}.")
        if self.hyper_rule is not None and self.hyper_rule not in HYPER_RULES:
            raise ValueError(f"`hyper_rule` should be one of {sorted(HYPER_RULES)}, got {self.hyper_rule!r}.")
        if self.fourier_adaptation is not None and not 0 <= self.fourier_adaptation < 0.5:
            raise ValueError(f"`fourier_adaptation` should be in [0, 0.5), got {self.fourier_adaptation}.")
        if not 0 <= self.source_holdout < 1:
            raise ValueError(f"`source_holdout` should be in [0, 1), got {self.source_holdout}.")
        if not 0 <= self.objective_warmup <= 1:
            raise ValueError(f"`objective_warmup` should be in [0, 1], got {self.objective_warmup}.")
        if self.head_learning_rate_multiplier <= 0:
            raise ValueError(
                f"`head_learning_rate_multiplier` should be positive, got {self.head_learning_rate_multiplier}."
            )


def check_numbers(args: TransferConfig) -> None:
    """Refuse numbers that no training could use; TrainingArguments takes a weight decay that is not a number.

    Raises:
        ValueError: one is out of range.
    """
    for item in fields(args):
        value = getattr(args, item.name, None)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"`{item.name}` should be a finite number, got {value}.")
        least = LEAST.get(item.name)
        if least is not None and isinstance(value, int | float) and value < least:
            raise ValueError(f"`{item.name}` should be at least {least}, got {value}.")
        if item.name in SEEDS and value is not None and not 0 <= value < 2**32:
            raise ValueError(f"`{item.name}` should be a whole number from 0 to 2**32 - 1, got {value}.")


def torch_optimizer(args: TransferConfig) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The class that `args.torch_optimizer` names, with the learning rate and, where it has them, Adam's settings."""
    cls = MuonWithAdamW if args.torch_optimizer == MUON else getattr(torch.optim, args.torch_optimizer)
    settings = {
        "lr": args.learning_rate,
        "betas": (args.adam_beta1, args.adam_beta2),
        "eps": args.adam_epsilon,
        **({"momentum": args.momentum} if args.momentum else {}),
    }
    accepted = inspect.signature(cls).parameters
    return cls, {name: value for name, value in settings.items() if name in accepted}
