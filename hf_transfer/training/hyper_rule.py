"""Settings of a training that follow from its data by a published rule."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from transformers.utils import logging

from hf_transfer.task_adaptation.bit_hyper_rule import BATCH, LEARNING_RATE, MOMENTUM, SMALL, length_of
from hf_transfer.training.transfer_config import HYPER_RULES, TransferConfig

logger = logging.get_logger(__name__)


def apply_hyper_rule(config: TransferConfig, rows: int | None) -> None:
    """Set what the rule says and the user does not; the choice is logged. Without a rule nothing is changed.

    Args:
        config: of the run; what is not at its default stays.
        rows: of the training set; None for a stream.

    Raises:
        ValueError: another schedule sets the rate over time, or a stream does not tell how many rows there are.
    """
    if config.hyper_rule is None:
        return
    if rows is None:
        raise ValueError("`hyper_rule` goes by the number of training rows, which a stream does not tell.")
    defaults = {one.name: one.default for one in fields(config)}
    chosen: dict[str, Any] = {}
    if config.max_steps == defaults["max_steps"] and config.num_train_epochs == defaults["num_train_epochs"]:
        chosen["max_steps"] = length_of(rows).steps
    most = min(BATCH, rows)  # a batch of all rows takes the place of one of 512 in which they come again and again
    if config.per_device_train_batch_size == defaults["per_device_train_batch_size"]:
        chosen["per_device_train_batch_size"] = max(1, most // config.world_size)
    batch = chosen.get("per_device_train_batch_size", config.per_device_train_batch_size) * config.world_size
    if config.learning_rate == defaults["learning_rate"]:
        chosen["learning_rate"] = LEARNING_RATE * (batch * config.gradient_accumulation_steps / most)
    if config.torch_optimizer is None and config.optim == defaults["optim"]:
        chosen |= {"torch_optimizer": "SGD", "momentum": MOMENTUM}
    for name, value in chosen.items():
        setattr(config, name, value)
    config.schedules = {**(config.schedules or {}), HYPER_RULES[config.hyper_rule]: {"rows": rows}}
    mixing = "; the rule's mixup of rows is left out" if rows >= SMALL else ""
    logger.warning(f"BiT's HyperRule for {rows} rows: {chosen}{mixing}.")
