"""The plan of a lifecycle: read once, and checked whole before anything is loaded or trained.

Sections: `data`, and `candidates` or `pretrain`, and where wanted `rank`, `task`, `domain`, `combine`, `publish`,
`budget` and `training`, whose arguments every adaptation has. Without `task`, `domain` and `combine` there is a
default: fine-tuning, and with a target CDAN with MCC, or DANN where labels are no classes. So has a section that names
no methods.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.ranking.settings import RankSettings
from hf_transfer.runs.arguments import DataArguments, parse_arguments, read_yaml
from hf_transfer.runs.combine import METHODS as COMBINING
from hf_transfer.runs.lifecycle.methods import (
    ARGUMENTS,
    FINE_TUNING,
    SOURCE_ONLY,
    Method,
    is_source_only,
    nearest,
    read_method,
    read_source_only,
    settings_of,
)
from hf_transfer.runs.lifecycle.pretraining import Pretraining, check_names, read_pretraining
from hf_transfer.runs.models import new_config
from hf_transfer.runs.values import check_types
from hf_transfer.training.objectives import make_objectives
from hf_transfer.validators import VALIDATORS

DATA_NAMES = {"train": "dataset", "target": "target_dataset", "test": "test_dataset", "text_column": "text_columns"}
"""Key of `data` -> argument of `hf-transfer adapt`."""
OWN_DATA = ("validation", "validation_rows", "source", "source_split", "source_options")
DATA_KEYS = {*DATA_NAMES, *OWN_DATA} | {
    *("split", "dataset_config", "dataset_options", "target_split", "target_options", "test_split", "test_rows"),
    *("labels_per_class", "label_column", "problem_type", "max_samples", "text_columns", "max_length"),
    *("forecasting", "id2label", "ignore_index", "series_columns"),
}
RANK_KEYS = {"score", "score_options", "layers", "pooling", "max_samples", "max_params", "batch_size", "dtype"} | {
    *("random_baseline", "trust_remote_code", "allow_pickle", "top", "start", "check")
}
STARTS = ("model", "encoder")
"""What goes on of a ranked model: all of it, or without its head."""
SECTIONS: dict[str, set[str]] = {
    "data": DATA_KEYS,
    "rank": RANK_KEYS,
    "task": {"methods", "search", "training"},
    "domain": {"methods", "search", "training", "validator", "guard"},
    "combine": {"methods", "top", "training"},
    "publish": {"output_dir", "hub_model_id", "private"},
    "budget": {"minutes", "memory", "seeds", "seed"},
    "training": ARGUMENTS,
}
CHOOSE = {"load_best_model_at_end", "early_stopping_patience"}
"""Arguments of a training that choose a checkpoint by the rows it is evaluated on."""
LISTS = ("candidates", "pretrain")
"""Sections that are lists."""
TRIALS, ARCHITECTURE = "trials", "architecture"
USUAL: dict[str, list[Any]] = {"task": [FINE_TUNING], "domain": [{"cdan": {}, "mcc": {}}]}
"""The methods of a stage that names none."""
USUAL_WITHOUT_CLASSES = {"dann": {}}
"""Of `domain`, where labels are numbers or may hold at once: CDAN and MCC read the probabilities of classes."""
UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


class PublishTypes(TypedDict):
    """Of the values of `publish`."""

    output_dir: str | None
    hub_model_id: str | None
    private: bool | None


class QueryTypes(TypedDict):
    """Of the values of a query of `candidates`."""

    filter: str | list | None
    author: str | None
    search: str | None
    pipeline_tag: str | None
    min_params: int | None
    max_params: int | None
    limit: int


QUERY_KEYS = frozenset(QueryTypes.__annotations__)


@dataclass(frozen=True)
class Stage:
    """The methods of one of `task`, `domain` and `combine`, their search, and further arguments of its trainings."""

    methods: tuple[Method, ...]
    search: Mapping[str, list] = field(default_factory=dict)
    trials: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    validator: str | None = None
    guard: bool = False
    top: int = 3
    source_only: Method = field(default_factory=lambda: Method(SOURCE_ONLY))
    are_usual: bool = False

    def settings(self, method: Method) -> list[dict[str, Any]]:
        """What the search tries of a method; one empty setting where nothing is listed."""
        return settings_of(method, self.search, self.trials)


@dataclass(frozen=True)
class Plan:
    """A checked plan; `given` is what the user wrote."""

    given: Mapping[str, Any]
    data: Mapping[str, Any]
    candidates: tuple[Any, ...]
    rank: Mapping[str, Any]
    top: int
    task: Stage | None
    domain: Stage | None
    combine: Stage | None
    training: Mapping[str, Any]
    output_dir: Path
    hub_model_id: str | None
    private: bool | None
    minutes: float | None
    memory: int | None
    seeds: int
    pretrain: tuple[Pretraining, ...] = ()
    seed: int = 0
    start: str = "model"
    checks: bool = False

    @property
    def validation(self) -> tuple[str | None, int | None]:
        """The dataset to choose by, or how many rows to hold out for that; both None for a fifth."""
        return self.data.get("validation"), self.data.get("validation_rows")

    def with_usual_methods(self, problem_type: str) -> Plan:
        """The plan with the usual methods for such labels in `domain`, where that names none."""
        if self.domain is None or not self.domain.are_usual or problem_type == SINGLE_LABEL:
            return self
        return replace(self, domain=replace(self.domain, methods=(read_method(USUAL_WITHOUT_CLASSES),)))

    def data_arguments(self) -> DataArguments:
        """What is read, as `hf-transfer adapt` would."""
        return DataArguments(**as_arguments(self.data))


def read_plan(plan: str | Path | Mapping[str, Any]) -> Plan:
    """The plan of a YAML file, which may have a `base`, or of a mapping.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown key, a value of another type or out of range, or an unknown method.
    """
    given = copy.deepcopy(dict(plan)) if isinstance(plan, Mapping) else read_yaml(plan)
    check_sections(given)
    given = without_nulls(given)
    data, candidates = given["data"], given.get("candidates") or []
    candidates = tuple(candidates if isinstance(candidates, list) else [candidates])
    check_candidates(candidates)
    seed = whole((given.get("budget") or {}).get("seed", 0), "budget.seed", least=0)
    pretrain = read_pretraining(given.get("pretrain"), tuple(roles_of(data)), seed)
    check_names(pretrain, candidates)
    rank, top, start, checks = read_rank(given.get("rank") or {})
    training = dict(given.get("training") or {})
    stages = read_stages(given, "target" in roles_of(data))
    publish, budget = given.get("publish") or {}, given.get("budget") or {}
    read = Plan(
        given=given,
        data=data,
        candidates=candidates,
        rank=rank,
        top=top,
        **stages,
        training=training,
        output_dir=Path(publish.get("output_dir") or f"lifecycle_{Path(data['train']).stem}").expanduser(),
        hub_model_id=publish.get("hub_model_id"),
        private=publish.get("private"),
        minutes=positive(budget.get("minutes"), "budget.minutes"),
        memory=number_of_bytes(budget.get("memory")),
        seeds=whole(budget.get("seeds", 1), "budget.seeds"),
        pretrain=pretrain,
        seed=seed,
        start=start,
        checks=checks,
    )
    check_validation(read)
    check_arguments(read)
    return read


def without_nulls(given: Mapping[str, Any]) -> dict[str, Any]:
    """A plan without the keys whose value is null, which say as much as keys left out; those of `training` stay."""
    return {
        section: {key: one for key, one in value.items() if one is not None}
        if isinstance(value, Mapping) and section != "training"
        else value
        for section, value in given.items()
    }


def read_rank(given: Mapping[str, Any]) -> tuple[dict[str, Any], int, str, bool]:
    """Keywords of `rank_models`, how many models go on, as what, and whether all are fine-tuned to check the ranking.

    Raises:
        ValueError: a value out of its range.
    """
    rank = dict(given)
    top = whole(rank.pop("top", 1), "rank.top")
    start, checks = rank.pop("start", STARTS[0]), rank.pop("check", False)
    if start not in STARTS or not isinstance(checks, bool):
        raise ValueError(
            f"`rank.start` should be one of {list(STARTS)} and `rank.check` true or false, got {start!r}, {checks!r}."
        )
    if "score" in rank and isinstance(rank["score"], list):
        rank["score"] = tuple(rank["score"])
    RankSettings(**{name: rank[name] for name in RankSettings.__dataclass_fields__ if name in rank})
    return rank, top, start, checks


def check_sections(given: Mapping[str, Any]) -> None:
    """Raises ValueError for an unknown section or key, and for data or candidates that are missing."""
    accepted = [*SECTIONS, *LISTS]
    for section, value in given.items():
        if section not in accepted:
            raise ValueError(f"the plan has no section `{section}`{nearest(section, accepted)}; accepted: {accepted}.")
        if section in LISTS:
            continue
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(f"`{section}` in the plan should be a mapping, got {value!r}.")
        for key in map(str, value or {}):
            if key not in SECTIONS[section]:
                keys = sorted(SECTIONS[section])
                listed = "" if section == "training" else f"; accepted: {keys}"
                raise ValueError(f"`{section}` in the plan has no key `{key}`{nearest(key, keys)}{listed}.")
    check_types(given.get("publish") or {}, [PublishTypes])
    if not (given.get("data") or {}).get("train"):
        raise ValueError("the plan says no training data: data: {train: my.csv}.")
    if not isinstance(given["data"]["train"], str):
        raise ValueError(f"`data.train` should be a string, got {given['data']['train']!r}.")
    if not given.get("candidates") and not given.get("pretrain"):
        raise ValueError("the plan names no candidates: candidates: [FOLDER, HUB_ID, {search: finance, limit: 20}].")


def check_candidates(candidates: tuple[Any, ...]) -> None:
    """Raises ValueError for what is neither a name nor a query to the Hub nor random weights of an architecture."""
    for one in candidates:
        if isinstance(one, Mapping) and ARCHITECTURE in one:
            if set(one) != {ARCHITECTURE} or not isinstance(one[ARCHITECTURE], Mapping):
                raise ValueError(f"random weights are given as {{architecture: {{model_type: ...}}}}, got {one!r}.")
            new_config(dict(one[ARCHITECTURE]))
        elif isinstance(one, Mapping):
            unknown = sorted(set(one) - QUERY_KEYS)
            if unknown or not one:
                hint = nearest(unknown[0], QUERY_KEYS) if unknown else ""
                raise ValueError(f"a query of `candidates` takes {sorted(QUERY_KEYS)}, got {dict(one)!r}{hint}.")
            check_types(one, [QueryTypes])
            whole(one.get("limit", 1), "limit")
        elif not isinstance(one, str) or not one:
            raise ValueError(f"`candidates` should hold names and queries such as {{search: finance}}, got {one!r}.")


def read_stages(given: Mapping[str, Any], has_target: bool) -> dict[str, Stage | None]:
    """`task`, `domain` and `combine` of a plan, or what is done where it has none of them."""
    asked = {name: given[name] or {} for name in ("task", "domain", "combine") if name in given}
    if not asked:
        asked = {name: {} for name in (("task", "domain") if has_target else ("task",))}
    if "domain" in asked and not has_target:
        raise ValueError(
            "`domain` adapts to unlabelled rows: give them as data: {target: new.csv}, or a `source` with "
            "`labels_per_class` of `train`, whose other rows are the target then."
        )
    return {name: read_stage(name, asked[name]) if name in asked else None for name in ("task", "domain", "combine")}


def read_stage(name: str, given: Mapping[str, Any]) -> Stage:
    """One stage with its methods and its search."""
    methods = given.get("methods") or []
    methods = methods if isinstance(methods, list) else [methods]
    are_usual = name in USUAL and all(map(is_source_only, methods))
    methods = [*methods, *USUAL[name]] if are_usual else methods
    if not methods:
        raise ValueError(f"`{name}` in the plan names no methods: {name}: {{methods: [...]}}.")
    search, training = (dict(mapping(given.get(key), f"{name}.{key}")) for key in ("search", "training"))
    trials = search.pop(TRIALS, None)
    for key, values in search.items():
        if not isinstance(key, str) or not isinstance(values, list) or not values:
            raise ValueError(f"`{name}.search.{key}` should list values, such as [1e-4, 1e-3], got {values!r}.")
        if "." not in key and key not in ARGUMENTS:
            raise ValueError(f"`{name}.search.{key}` is no argument of a training{nearest(key, ARGUMENTS)}.")
    validator = given.get("validator")
    if validator is not None and validator not in list(VALIDATORS):
        raise ValueError(
            f"`domain.validator` should be one of {sorted(VALIDATORS)}, got {validator!r}"
            f"{nearest(validator, VALIDATORS)}."
        )
    source_only = Method(SOURCE_ONLY)
    if name == "domain":
        source_only = next((read_source_only(one) for one in methods if is_source_only(one)), source_only)
        methods = [one for one in methods if not is_source_only(one)]
    read = tuple(combining(one) if name == "combine" else read_method(one) for one in methods)
    labels = [method.label for method in read]
    if name != "combine" and len(set(labels)) < len(labels):
        raise ValueError(f"`{name}`: every method needs a name of its own, got {labels}; give `name` to each.")
    for key in search:
        part = key.partition(".")[0]
        if "." in key and not any(method.has(part) for method in read):
            raise ValueError(f"`{name}.search.{key}`: no method of `{name}` has a part `{part}`.")
    guard = given.get("guard", True)
    if not isinstance(guard, bool):
        raise ValueError(f"`domain.guard` should be true or false, got {guard!r}.")
    top = whole(given.get("top", 3), "combine.top", least=2)
    trials = None if trials is None else whole(trials, f"{name}.search.trials")
    return Stage(read, search, trials, training, validator, guard, top, source_only, are_usual)


def combining(given: Any) -> Method:
    """A method that draws on several models; its keywords go to its objective or converter."""
    if not isinstance(given, str) and not (isinstance(given, Mapping) and len(given) == 1):
        raise ValueError(f"`combine.methods` should list names, or a name with its keywords, got {given!r}.")
    name, keywords = (given, {}) if isinstance(given, str) else next(iter(given.items()))
    if name not in COMBINING:
        raise ValueError(
            f"`combine.methods` should name some of {sorted(COMBINING)}, got {name!r}{nearest(name, COMBINING)}."
        )
    parts = COMBINING[name]
    group = "objectives" if "objectives" in parts else "converters"
    return Method(
        name, {group: {parts[group]: dict(mapping(keywords, f"combine.methods.{name}"))}} if keywords else {}
    )


def roles_of(data: Mapping[str, Any]) -> list[str]:
    """The rows that a plan has beside those for tests and choices.

    Raises:
        ValueError: a source without a target, or keywords of a source that is not there.
    """
    if "source" not in data:
        for key in ("source_split", "source_options"):
            if key in data:
                raise ValueError(f"`data.{key}` is of the `source`, which the plan does not name.")
        return ["train", "target"] if "target" in data else ["train"]
    if "target" not in data and data.get("labels_per_class") is None:
        raise ValueError(
            "`data.source` is adapted to a target: name it, or `labels_per_class`, and other rows of `train` are."
        )
    return ["train", "source", "target"]


def check_validation(plan: Plan) -> None:
    """Raises ValueError where no rows are to be held out to choose by, and something is chosen by such rows."""
    rows = plan.data.get("validation_rows")
    if rows is None or whole(rows, "data.validation_rows", least=0) > 0:
        return
    is_free = plan.task is None or (plan.domain is not None and plan.top == 1 and not plan.task.search)
    if plan.combine is not None or not is_free:
        raise ValueError(
            "`data.validation_rows` = 0 holds out no rows, by which `task` and `combine` choose: leave it out. Only "
            "before `domain`, with one model and no `search`, does `task` choose nothing."
        )


def check_arguments(plan: Plan) -> None:
    """Raises ValueError or TypeError where a training of the plan would refuse its arguments."""
    for stage in (plan.task, plan.domain, plan.combine):
        for method in () if stage is None else (stage.source_only, *stage.methods):
            for setting in stage.settings(method):
                arguments = {**plan.training, **stage.training, **method.changed(setting)}
                if stage is not plan.domain and (chooses := CHOOSE & arguments.keys()):
                    raise ValueError(f"`{max(chooses)}` would choose by test rows here: leave it out.")
                experiment = parse_arguments(
                    [], **as_arguments(plan.data), model="any", output_dir=str(plan.output_dir), **arguments
                )
                if stage is not plan.combine:
                    make_objectives(experiment.config.objectives)


def as_arguments(data: Mapping[str, Any]) -> dict[str, Any]:
    """The section `data` as arguments of `hf-transfer adapt`."""
    arguments = {DATA_NAMES.get(name, name): value for name, value in data.items() if name not in OWN_DATA}
    if isinstance(arguments.get("text_columns"), str):
        arguments["text_columns"] = [arguments["text_columns"]]
    return arguments


def mapping(value: Any, name: str) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"`{name}` should be a mapping, got {value!r}.")
    return value or {}


def whole(value: Any, name: str, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}` should be a whole number from {least} on, got {value!r}.")
    return value


def positive(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(f"`{name}` should be a positive number, got {value!r}.")
    return float(value)


def number_of_bytes(given: Any) -> int | None:
    """Bytes of a number, or of words such as 20GB."""
    if given is None:
        return None
    found = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]?b)?\s*", str(given).lower())
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"`budget.memory` should be a size such as 20GB, got {given!r}.")
    return int(float(found[1]) * UNITS[found[2] or ""])
