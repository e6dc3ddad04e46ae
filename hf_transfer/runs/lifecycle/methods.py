"""A method of a plan as the arguments of `hf-transfer adapt` that it stands for.

lora                            peft: {peft_type: LORA, r: 8, lora_alpha: 16, target_modules: all-linear}
{l2_sp: {}, bss: {}}            objectives: {l2_sp: {}, bss: {}}
{stoch_norm: {}, ulmfit: {}}    converters: {stoch_norm: {}}, schedules: {ulmfit: {}}
{dann: {}, learning_rate: 1e-3} objectives: {dann: {}}, learning_rate: 1e-3
{dann: {}, name: DANN}          objectives: {dann: {}}, called DANN in tables
{source_only: {}, warmup_steps: 0}  of `domain`: what every other method is compared with, with arguments of its own
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_transfer.runs.arguments import ModelArguments, RunArguments
from hf_transfer.task_adaptation import SCHEDULES
from hf_transfer.training.converters import REGISTRY as CONVERTERS
from hf_transfer.training.objectives import REGISTRY as OBJECTIVES
from hf_transfer.training.trainer import TransferConfig
from hf_transfer.tuners import TUNERS

FINE_TUNING, SOURCE_ONLY = "fine_tuning", "source_only"
NAME = "name"
"""Key of a method: what tables call it."""
PRESETS: dict[str, dict[str, Any]] = {
    FINE_TUNING: {},
    "feature_transfer": {"backbone_freeze_ratio": 1.0},
    # r and alpha as recipes/task_adaptation/digits_lora.yaml
    "lora": {"peft": {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": "all-linear"}},
    **{name: {"peft": {"peft_type": name.upper()}} for name in TUNERS},
}
"""Methods that are no entry of a registry, as arguments of a run."""
GROUPS = {"objectives": OBJECTIVES, "converters": CONVERTERS, "schedules": SCHEDULES}
OWN = (
    *("output_dir", "resume", "overwrite", "guard", "source_only", "push_to_hub", "hub_model_id", "seed", "model"),
    "revision",
)
"""Arguments that a lifecycle sets by itself."""
ARGUMENTS = {name for cls in (ModelArguments, RunArguments, TransferConfig) for name in cls.__dataclass_fields__} - {
    *OWN
}


@dataclass(frozen=True)
class Method:
    """One method: its name in tables, and the arguments of a run.

    Args:
        label: such as "l2_sp + bss".
        arguments: of `hf-transfer adapt`.
    """

    label: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def has(self, part: str) -> bool:
        """Whether a part, such as "cdan", is one of its objectives, converters or schedules."""
        return any(part in (self.arguments.get(group) or {}) for group in GROUPS)

    def changed(self, setting: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with the values of a search; "cdan.weight" is a keyword of a part."""
        arguments = dict(self.arguments)
        for name, value in setting.items():
            part, dot, keyword = name.partition(".")
            if not dot:
                arguments[name] = value
                continue
            (group,) = [group for group in GROUPS if part in (arguments.get(group) or {})][:1]
            keywords = {**(arguments[group][part] or {}), keyword: value}
            arguments[group] = {**arguments[group], part: keywords}
        return arguments


def read_method(given: Any) -> Method:
    """The method that a name or a mapping of names to keywords stands for.

    Raises:
        ValueError: neither, or an unknown name.
    """
    if isinstance(given, str):
        given = {given: {}}
    if not isinstance(given, Mapping) or not given:
        raise ValueError(
            "a method should be a name, such as lora, or names with their keywords, such as {cdan: {}, mcc: {}}, got "
            f"{given!r}."
        )
    parts = {name: value for name, value in given.items() if name != NAME}
    name = given.get(NAME)
    if not parts or not (name is None or (isinstance(name, str) and name)):
        raise ValueError(f"a method has a part, and its `name` should be words, got {dict(given)!r}.")
    arguments: dict[str, Any] = {}
    for part, value in parts.items():
        add_part(arguments, part, value)
    return Method(name or " + ".join(part_label(part, value) for part, value in parts.items()), arguments)


def is_source_only(given: Any) -> bool:
    """Whether an entry of `domain.methods` is training on the source alone."""
    return given == SOURCE_ONLY or (isinstance(given, Mapping) and SOURCE_ONLY in given)


def read_source_only(given: Any) -> Method:
    """Training on the source alone, with arguments of its own.

    Raises:
        ValueError: it names parts of a method, or no arguments of a training.
    """
    arguments = {} if isinstance(given, str) else {key: value for key, value in given.items() if key != SOURCE_ONLY}
    for key in arguments:
        if key not in ARGUMENTS or key in GROUPS:
            raise ValueError(
                f"`{SOURCE_ONLY}` takes arguments of a training, such as learning_rate, got `{key}`"
                f"{nearest(key, ARGUMENTS)}."
            )
    return Method(SOURCE_ONLY, arguments)


def add_part(arguments: dict[str, Any], name: str, value: Any) -> None:
    """Add what one name of a method stands for to the arguments of a run."""
    group = next((group for group, registry in GROUPS.items() if name in registry), None)
    if group is not None:
        arguments[group] = {**arguments.get(group, {}), name: keywords_of(name, value)}
    elif name in PRESETS:
        preset = PRESETS[name]
        keywords = keywords_of(name, value)
        if "peft" in preset:
            preset = {"peft": {**preset["peft"], **keywords}}
        elif keywords:
            raise ValueError(f"the method `{name}` has no keywords, got {value!r}.")
        arguments |= preset
    elif name in ARGUMENTS:
        arguments[name] = value
    else:
        accepted = sorted({*PRESETS, *OBJECTIVES, *CONVERTERS, *SCHEDULES})
        raise ValueError(f"unknown method `{name}`{nearest(name, [*accepted, *ARGUMENTS])}; accepted: {accepted}.")


def keywords_of(name: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"the keywords of the method `{name}` should be a mapping, such as {{}}, got {value!r}.")
    return dict(value or {})


def part_label(name: str, value: Any) -> str:
    if name in ARGUMENTS and name not in PRESETS:
        return f"{name}={value}"
    return f"{name}({', '.join(f'{key}={one}' for key, one in value.items())})" if value else name


def nearest(name: str, accepted: Collection[str]) -> str:
    """A clause that names the accepted word that is most alike; empty where none is."""
    close = difflib.get_close_matches(str(name), list(accepted), n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def settings_of(method: Method, search: Mapping[str, Any], most: int | None, seed: int = 0) -> list[dict[str, Any]]:
    """Every combination of the listed values that applies to a method; a random part where there are more than `most`.

    Args:
        method: a dotted name, such as "cdan.weight", applies where the method has that part.
        search: name of an argument -> its values.
        most: at most so many; None for all.
        seed: of the draw.
    """
    names = [name for name in search if "." not in name or method.has(name.partition(".")[0])]
    found = [dict(zip(names, values)) for values in itertools.product(*(search[name] for name in names))]
    if most is None or len(found) <= most:
        return found
    chosen = np.random.default_rng(seed).permutation(len(found))[:most]
    return [found[place] for place in sorted(chosen)]
