"""Parameters whose learning rate stays constant while the schedule moves the others': groups of an optimizer.

SimSiam's predictor is one (https://huggingface.co/papers/2011.10566): rate(t) = rate(0).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

MARK = "has_constant_rate"


def split_constant_groups(optimizer: torch.optim.Optimizer, constant: Iterable[nn.Parameter]) -> None:
    """Move these parameters into groups of their own, each with the settings of the group it was in.

    Args:
        optimizer: before its first step.
        constant: parameters; those that do not train are passed over.
    """
    chosen = {id(parameter) for parameter in constant}
    for group in list(optimizer.param_groups):
        moved = [parameter for parameter in group["params"] if id(parameter) in chosen]
        if moved:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in chosen]
            optimizer.add_param_group({**group, "params": moved, MARK: True})
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]


def hold_constant_groups(scheduler: LRScheduler) -> None:
    """Let the schedule leave the groups that `split_constant_groups` made as they are.

    Args:
        scheduler: of the optimizer, before its first step.

    Raises:
        ValueError: a scheduler that has no factor for each group.
    """
    groups = scheduler.optimizer.param_groups
    held = [index for index, group in enumerate(groups) if group.get(MARK)]
    if held and not isinstance(scheduler, LambdaLR):
        kind = type(scheduler).__name__
        raise ValueError(
            f"an objective keeps the learning rate of some of its parameters constant, and a {kind} cannot: choose "
            "another `lr_scheduler_type`, such as linear or cosine, or let them follow the schedule (`constant_rate: "
            "false` of simsiam)."
        )
    for index in held:
        scheduler.lr_lambdas[index] = _one
        groups[index]["lr"] = scheduler._last_lr[index] = scheduler.base_lrs[index]


def _one(step: int) -> float:
    return 1.0
