"""Every objective by its short name, made from {"cdan": {}, "mcc": {"temperature": 2.5}}, and its checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_transfer.core.keywords import checked_keywords
from hf_transfer.core.label_sets import LabelSet
from hf_transfer.core.objective import Objective, alternating_name, needs_of
from hf_transfer.core.readout import Readout
from hf_transfer.core.registry import registered
from hf_transfer.domain_adaptation import OBJECTIVES as DOMAIN_ADAPTATION
from hf_transfer.domain_generalization import OBJECTIVES as DOMAIN_GENERALIZATION
from hf_transfer.few_shot import OBJECTIVES as FEW_SHOT
from hf_transfer.multi_model import OBJECTIVES as MULTI_MODEL
from hf_transfer.pretraining import OBJECTIVES as PRETRAINING
from hf_transfer.task_adaptation import OBJECTIVES as TASK_ADAPTATION

REGISTRY: dict[str, str] = {
    **PRETRAINING,
    **TASK_ADAPTATION,
    **FEW_SHOT,
    **MULTI_MODEL,
    **DOMAIN_ADAPTATION,
    **DOMAIN_GENERALIZATION,
}
"""Every objective by its short name, as "module:class"."""

WEIGHTS_IN_PARTS = 3
"""The stage of DeepSpeed's ZeRO from which on a weight is whole only while a module runs."""


def objective_class(name: str) -> type[Objective]:
    """The class of a registered objective.

    Raises:
        ValueError: no objective has this name.
    """
    return registered(REGISTRY, name, "objective")


def make_objectives(spec: Mapping[str, Any] | None) -> dict[str, Objective]:
    """Objectives from {"cdan": {}, "mcc": {"temperature": 2.5}}; ready-made objectives pass through.

    Raises:
        ValueError: an unknown name or a keyword's value out of range.
        TypeError: a keyword that the objective does not have.
    """
    if spec is not None and not isinstance(spec, Mapping):
        raise TypeError(f'`objectives` should map names to keywords, such as {{"l2_sp": {{}}}}, got {spec!r}.')
    made = {}
    for name, keywords in (spec or {}).items():
        if isinstance(keywords, Objective):
            made[name] = keywords
            continue
        cls = objective_class(name)
        checked = checked_keywords(cls, keywords, f"objective `{name}`")
        try:
            made[name] = cls(**checked)
        except TypeError as error:
            raise TypeError(f"objective `{name}`: {error}") from error
    return made


def alternates(spec: Mapping[str, Any] | None) -> bool:
    """Whether the steps of one of these objectives alternate."""
    return alternating_name(make_objectives(spec)) is not None


def check_tasks(objectives: Mapping[str, Objective], problem_type: str) -> None:
    """Raises ValueError when an objective's formula is not defined for the problem type of the run."""
    for name, objective in objectives.items():
        if problem_type not in objective.tasks:
            defined = sorted(one for one in REGISTRY if problem_type in objective_class(one).tasks)
            raise ValueError(
                f"the objective `{name}` is defined for {', '.join(sorted(objective.tasks))}, and this is "
                f"{problem_type} (by the model's `problem_type` and `num_labels`, or its labels). Defined for it: "
                f"{', '.join(defined)}. An objective of your own says so by `tasks`."
            )


def label_spaces(spec: Mapping[str, Any] | None) -> set[str]:
    """Which target classes these objectives are made for: "closed", "partial", "open"."""
    return {objective.label_space for objective in make_objectives(spec).values()}


def label_sets_of(objectives: Mapping[str, Objective]) -> dict[str, LabelSet]:
    """The further label columns that these objectives read."""
    return {column: labels for one in objectives.values() for column, labels in one.label_sets.items()}


def check_views(objectives: Mapping[str, Objective], readout: Readout, model_class: str) -> None:
    """Raises ValueError when units that are parts of rows should be compared over augmented copies of the rows."""
    asking = [name for name, one in objectives.items() if "views" in one.needs]
    if asking and not readout.units_are_rows:
        raise ValueError(
            f"{asking} compare augmented copies of whole rows, and the readout `{type(readout).__name__}` of a "
            f"{model_class} reads parts of them, which augmentation moves: it could not be told which belong together."
        )


def check_readout(objectives: Mapping[str, Objective], readout: Readout, model_class: str) -> None:
    """Raises ValueError when an objective reads features or logits and the model's readout gives none."""
    for need, width in (("features", readout.feature_dim), ("logits", readout.num_outputs)):
        asking = [name for name, objective in objectives.items() if need in needs_of(objective)]
        if asking and width is None:
            raise ValueError(
                f"{asking} need {need}, and the readout `{type(readout).__name__}` of a {model_class} gives none: "
                "load a model with a linear head of `num_labels` outputs (AutoModelForSequenceClassification, "
                "AutoModelForImageClassification, AutoModelForTokenClassification), or say what to read by `readout`, "
                'such as "pooled" for a backbone or the name of an output of shape [rows, width].'
            )


def check_whole_weights(objectives: Mapping[str, Objective], plugin: Any) -> None:
    """Raises ValueError under ZeRO 3 for objectives that read or move weights outside a forward, where there are none.

    Args:
        objectives: of the training.
        plugin: accelerate's of DeepSpeed; None without DeepSpeed.
    """
    if plugin is None or plugin.zero_stage < WEIGHTS_IN_PARTS:
        return
    asking = [
        name
        for name, one in objectives.items()
        if "weights" in one.needs or type(one).after_step is not Objective.after_step
    ]
    if asking:
        raise ValueError(
            f"{asking} read the model's weights between its forwards, when DeepSpeed's ZeRO 3 has taken them apart: "
            "use ZeRO 2 (recipes/accelerate/deepspeed_zero2.yaml) or FSDP2 (recipes/accelerate/fsdp2.yaml)."
        )
