"""The stages that train: every method on every model that is left, with its search and every seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from hf_transfer.models.revisions import split_revision
from hf_transfer.multi_model.ranked_models import ranked_models
from hf_transfer.runs.combine import combined
from hf_transfer.runs.lifecycle.candidates import pinned_member, revision_of_hub
from hf_transfer.runs.lifecycle.methods import FINE_TUNING, Method
from hf_transfer.runs.lifecycle.plan import ARCHITECTURE, Plan, Stage
from hf_transfer.runs.lifecycle.progress import Progress
from hf_transfer.runs.lifecycle.rows import labelled_role, problem_type_of, rows_arguments
from hf_transfer.runs.lifecycle.search import halve
from hf_transfer.runs.lifecycle.store import Store
from hf_transfer.runs.lifecycle.training import DEFAULTS, Training, steps_of, train
from hf_transfer.runs.named_models import with_names
from hf_transfer.validators import WORKING

CHECK = "check"
PATHS = ("dataset", "test_dataset", "target_dataset", "dataset_names")


@dataclass(frozen=True)
class Setting:
    """Where the stages of a lifecycle work.

    Args:
        plan: of the lifecycle.
        store: of finished pieces.
        progress: told of what is done.
        rows: facts of the data.
        ranking: folder of the ranking, where there is one.
        revisions: of the candidates by name.
        shown: what tables call them.
        notes: for the report: what was left out, and why.
        left: names (stage, model, method) of what is trained; None for everything.
        seeds: how many.
        ranked: the candidates that were ranked, best first.
        pretrained: records of the candidates that the plan pre-trained.
    """

    plan: Plan
    store: Store
    progress: Progress
    rows: Mapping[str, Any]
    ranking: Path | None
    revisions: Mapping[str, str | None]
    shown: Mapping[str, str]
    notes: list[str] = field(default_factory=list)
    left: set[tuple[str, str, str]] | None = None
    seeds: int = 1
    ranked: list[dict[str, Any]] = field(default_factory=list)
    pretrained: list[dict[str, Any]] = field(default_factory=list)

    def keeps(self, stage: str, model: str, method: str) -> bool:
        """Whether the budget leaves a method; of the domain stage, on whichever model it starts from."""
        if stage == "domain":
            return self.left is None or any((stage, method) == (one[0], one[2]) for one in self.left)
        return self.left is None or (stage, model, method) in self.left

    @property
    def validation(self) -> Path | None:
        """Folder of the rows to choose by; None where the plan holds none out."""
        return Path(self.rows["folder"]) / "validation" if "validation" in self.rows["rows"] else None

    @property
    def every_seed(self) -> range:
        """Seeds of the trainings of a method."""
        return range(self.plan.seed, self.plan.seed + self.seeds)

    @property
    def of_check(self) -> Stage:
        """What the ranking is checked by: fine-tuning, as the task stage would."""
        training = {} if self.plan.task is None else self.plan.task.training
        return Stage((Method(FINE_TUNING),), training=training)


@dataclass(frozen=True)
class Entry:
    """A row of the closing table: a method on a model.

    Args:
        stage: check, task, domain or combine.
        model: that it started from, as tables show it.
        method: its label.
        setting: that the search chose.
        records: of the trainings, one a seed.
        trials: of the search.
    """

    stage: str
    model: str
    method: str
    setting: Mapping[str, Any]
    records: list[dict[str, Any]]
    trials: list[dict[str, Any]] = field(default_factory=list)

    @property
    def score(self) -> float:
        """What entries of a stage are compared by: the mean over the seeds, higher is better; alike without any."""
        return fmean(scored(record) for record in self.records)

    @property
    def best(self) -> dict[str, Any]:
        """The record of the seed with the highest score."""
        return max(self.records, key=scored)


def scored(record: Mapping[str, Any]) -> float:
    """What a training is compared by; minus infinity where the plan holds no rows out for that."""
    return -math.inf if record["score"] is None else record["score"]


def run_check(models: list[dict[str, Any]], place: Setting) -> list[Entry]:
    """Every ranked model fine-tuned, whole with its head, to see whether the ranking was right."""
    return [entry for model in models for entry in run_stage(CHECK, place.of_check, model, place)]


def run_stage(
    name: str, stage: Stage, model: Mapping[str, Any], place: Setting, sources: Mapping | None = None
) -> list:
    """Every method of a stage on one model that the budget leaves, in the order of the plan.

    Args:
        name: check, task, domain or combine.
        stage: of the plan.
        model: a candidate.
        place: where to work.
        sources: of a domain stage with a guard: the source-only training of each seed.
    """
    kept = [method for method in stage.methods if place.keeps(name, model["shown"], method.label)]
    return [run_method(name, stage, method, model, place, sources) for method in kept]


def run_domain(stage: Stage, model: Mapping[str, Any], place: Setting) -> list[Entry]:
    """Source only, and then every method; with a guard each is compared with source only of the same seed."""
    source_only = run_method("domain", stage, stage.source_only, model, place)
    sources = dict(zip(place.every_seed, source_only.records)) if stage.guard else None
    return [source_only, *run_stage("domain", stage, model, place, sources)]


def run_method(
    name: str,
    stage: Stage,
    method: Method,
    model: Mapping[str, Any],
    place: Setting,
    sources: Mapping[int, Mapping[str, Any]] | None = None,
) -> Entry:
    """Search the settings of a method, then train it with every seed."""
    make = partial(make_training, name, stage, method, model, place)

    def score(setting: Mapping[str, Any], steps: int) -> float | None:
        return train(make(setting, steps=steps), place.store, place.progress, place.validation)["score"]

    def steps(setting: Mapping[str, Any]) -> int:
        return make(setting).settings["max_steps"]

    chosen, trials = halve(stage.settings(method), steps, score)
    records = [
        train(make(chosen, seed=seed, source=(sources or {}).get(seed)), place.store, place.progress, place.validation)
        for seed in place.every_seed
    ]
    return Entry(name, model["shown"], method.label, dict(chosen), records, trials)


def make_training(
    name: str,
    stage: Stage,
    method: Method,
    model: Mapping[str, Any],
    place: Setting,
    setting: Mapping[str, Any],
    *,
    seed: int | None = None,
    steps: int | None = None,
    source: Mapping[str, Any] | None = None,
) -> Training:
    """One training of a stage; with `steps` a trial of the search, which never reads the test rows."""
    plan, rows, is_domain, is_trial = place.plan, place.rows, name == "domain", steps is not None
    test = measured_role(rows, is_domain, is_trial)
    given = {**DEFAULTS, **plan.training, **stage.training, **method.changed(setting)}
    given |= rows_arguments(plan, rows, test, is_domain)
    labelled = labelled_role(rows, is_domain)
    given["max_steps"] = steps or steps_of(given, rows["rows"][labelled] * (2 if is_domain else 1))
    given.pop("num_train_epochs", None)
    given |= (
        {ARCHITECTURE: model[ARCHITECTURE]} if ARCHITECTURE in model else {"model": split_revision(model["name"])[0]}
    )
    given = with_names(given, partial(pinned_member, store=place.store))
    given["seed"] = seed = plan.seed if seed is None else seed
    validator = None
    if is_domain:
        validator = given["validator"] = stage.validator or WORKING[problem_type_of(rows)][0]
    paths = {key: given.pop(key) for key in PATHS if key in given}
    read = {role: value for role, value in rows["fingerprints"].items() if role in {labelled, *roles(is_domain, test)}}
    depends: dict[str, Any] = {"rows": read, "revision": model["revision"]}
    if source is not None and given.get("objectives"):
        paths["source_only"] = source["model"]
        depends["source_only"] = Path(source["model"]).parent.name
    if "model" in given:
        paths |= revision_of_hub(model)
    if place.ranking is not None and "model" in given:
        paths["from_ranking"] = str(place.ranking)
    change = None
    if name == "combine":
        change = partial(combined, method=method.label, ranking=str(place.ranking), top=stage.top)
        depends["models"] = {one: place.revisions[one] for one in ranked_models(str(place.ranking), stage.top)}
        depends["method"] = method.label
    words = [f"{key}={value}" for key, value in setting.items()]
    what = f"{name}: {method.label} on {model['shown']}" + (f", {', '.join(words)}" if is_trial and words else "")
    what += f", {steps} steps" if is_trial else f", seed {seed}"
    return Training(what, given, depends, validator, is_trial, paths, change)


def measured_role(rows: Mapping[str, Any], is_domain: bool, is_trial: bool) -> str | None:
    """The rows that a training measures on: those of the test, or those that it is chosen by; None for none."""
    if is_domain:  # chosen by the validator, which has rows of its own
        return "test" if "test" in rows["rows"] and not is_trial else None
    return "validation" if is_trial or "test" not in rows["rows"] else "test"


def roles(is_domain: bool, test: str | None) -> set[str]:
    """The rows that a training depends on, beside those that it reads labels of."""
    return {"validation", *(["target"] if is_domain else []), *([test] if test else [])}
