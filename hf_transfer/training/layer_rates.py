"""Learning rates of head and layers, as groups of an optimizer.

rate = learning_rate * head_multiplier               outside the backbone
rate = learning_rate * prod_schedules rate(index)    in the layer `index` below the head
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn
from transformers import TrainingArguments

from hf_transfer.task_adaptation.schedule import Schedule


def parameter_groups(
    model: nn.Module,
    indices: Mapping[str, int],
    decayed: Collection[str],
    args: TrainingArguments,
    schedules: Sequence[Schedule] = (),
    head_multiplier: float = 1.0,
) -> list[dict[str, Any]]:
    """The backbone from its fastest layer on, then the rest; each with and without weight decay.

    Args:
        model: whose trainable parameters are meant, wrapped or not.
        indices: indices below the head of the backbone's parameters, by the ends of their names in `model`.
        decayed: names in `model` of the parameters with weight decay.
        args: learning rate and weight decay.
        schedules: multiply the rates of the layers.
        head_multiplier: multiplies the rate of everything outside the backbone.
    """
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            index = next((index for end, index in indices.items() if name.endswith(end)), 0)
            rate = math.prod(schedule.rate(index) for schedule in schedules) * (1.0 if index else head_multiplier)
            groups[(index > 0, rate, name in decayed)].append(parameter)
    return [
        {
            "params": parameters,
            "lr": args.learning_rate * rate,
            "weight_decay": args.weight_decay if is_decayed else 0.0,
        }
        for (_, rate, is_decayed), parameters in sorted(groups.items(), reverse=True, key=lambda item: item[0])
    ]
