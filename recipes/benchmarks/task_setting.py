"""What a setting of recipes/benchmarks/tasks.py is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

QUIET = {"logging_steps": 1000, "disable_tqdm": True}
ADAPTERS: dict[str, Any] = {
    "lora": {"peft": {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": "all-linear"}},
    "residual": {"peft": {"peft_type": "RESIDUAL", "r": 8}},
}
L2_SP: dict[str, Any] = {"objectives": {"l2_sp": {}}}


def warm(**objectives: Mapping[str, Any]) -> dict[str, Any]:
    """Objectives that come in over the first half of the training."""
    return {"objectives": objectives, "objective_warmup": 0.5}


@dataclass(frozen=True)
class Setting:
    """One task on given data, and the methods that are compared on it.

    Args:
        says: what it is, in a sentence or two.
        arguments: of every run, as of a YAML recipe.
        methods: name -> the arguments in which it differs.
        metrics: names of the metrics that are kept, the main one first.
        start: a name, and the arguments of the training whose model every run starts from; None where runs start from
            what their arguments say. Settings with the same name share it.
    """

    says: str
    arguments: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    metrics: tuple[str, ...]
    start: tuple[str, Mapping[str, Any]] | None = None
