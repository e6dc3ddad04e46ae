"""What the Trainer of transformers takes and a TransferTrainer would pass over in silence, or never train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.optim import Optimizer

from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.training.transfer_config import TransferConfig
from hf_transfer.training.transfer_model import TransferModel

BUILT_HERE = {
    "head_learning_rate_multiplier": 1.0,
    "layer_learning_rate_decay": 1.0,
    "schedules": None,
    "torch_optimizer": None,
}
"""Settings that the Trainer's own optimizer is made with -> their value where they are not given."""


def check_trainer_arguments(model: Any, arguments: Mapping[str, Any]) -> None:
    """Raises TypeError where there is no model, or a loss that nothing would ask.

    Args:
        model: of the trainer.
        arguments: what else the trainer was given.
    """
    if model is None or arguments.get("model_init") is not None:
        raise TypeError(
            "give a `model`: what objectives keep of it (heads, copies, measures of the data) is made once, and "
            "`model_init` would make another model for each trial. `search` of a plan (`hf-transfer run`) tries "
            "settings, a training of its own each."
        )
    if arguments.get("compute_loss_func") is not None:
        raise TypeError(
            "`compute_loss_func` would not be asked: the loss is that of the task and of the objectives. To add one, "
            "write an `Objective`; `task_loss_weight: 0` leaves that of the task out."
        )


def check_ready_model(model: TransferModel, args: TransferConfig, objectives: Any, readout: Any) -> None:
    """Raises ValueError for settings that only a trainer which makes its TransferModel would read."""
    if objectives is not None or args.objectives:
        raise ValueError("give `objectives` to the TransferModel or to the trainer, not to both.")
    if readout is not None:
        raise ValueError("give `readout` to the TransferModel, which is made with one.")
    if args.label_smoothing_factor not in (0.0, model.label_smoothing):
        raise ValueError(
            f"`label_smoothing_factor` is {args.label_smoothing_factor}, and the TransferModel was made with "
            f"`label_smoothing={model.label_smoothing}`: give it there."
        )


def check_whole_batches(args: TransferConfig, model: TransferModel, columns: Iterable[str]) -> None:
    """Raises ValueError where processes would share the batches that a sampler composes of domains or episodes.

    Args:
        args: settings of the training.
        model: in training.
        columns: of the training set.
    """
    composes = "domain" in columns or "episodes" in model.needs
    if composes and args.accelerator_config.split_batches and args.world_size > 1:
        raise ValueError(
            "`split_batches` of `accelerator_config` cuts each batch between the processes, so that one would get the "
            "source and another the target, or parts of an episode: leave it out, and choose "
            "`per_device_train_batch_size` for each process."
        )


def check_trains(model: TransferModel) -> None:
    """Raises ValueError where a training would leave the whole model as it is."""
    parts = (model.model, model.sidecars)
    if not any(parameter.requires_grad for part in parts for parameter in part.parameters()):
        raise ValueError(
            f"no parameter of the {type(unwrap_peft(model.model)).__name__} takes a gradient: a training would "
            "change nothing of it: `requires_grad_()` on what should train, such as its head."
        )


def check_given_optimizer(optimizer: Optimizer | None, model: TransferModel, args: TransferConfig) -> None:
    """Refuse an optimizer from outside that would leave parts of the training as they are.

    Args:
        optimizer: the first of `Trainer(optimizers=...)`; None where the Trainer makes its own.
        model: in training.
        args: settings of the training.

    Raises:
        ValueError: it lacks parameters of objectives, or settings are made for the Trainer's own.
    """
    if optimizer is None:
        return
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    parts = {**model.objectives, **model.sidecars}
    lacking = sorted(
        name
        for name, part in parts.items()
        if any(one.requires_grad and id(one) not in known for one in part.parameters())
    )
    if lacking:
        raise ValueError(
            f"`optimizers` lacks parameters of {lacking}, which would never train: make the TransferModel first, an "
            "optimizer of all its `parameters()`, and give both to the trainer; or leave `optimizers` out."
        )
    named = sorted(name for name, usual in BUILT_HERE.items() if getattr(args, name) != usual)
    if named:
        raise ValueError(f"{named} shape the trainer's own optimizer, and `optimizers` gives another: leave one out.")
