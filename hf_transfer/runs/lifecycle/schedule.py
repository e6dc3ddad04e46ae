"""Everything that a plan is going to train, checked and where asked measured before any of it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hf_transfer.runs.lifecycle.budget import Work, fit, with_staying
from hf_transfer.runs.lifecycle.measure import STANDS_IN, STEPS, measure, minutes_of
from hf_transfer.runs.lifecycle.methods import Method
from hf_transfer.runs.lifecycle.plan import Stage
from hf_transfer.runs.lifecycle.search import rounds_of
from hf_transfer.runs.lifecycle.stages import CHECK, Setting, make_training
from hf_transfer.runs.lifecycle.zoo import pretraining_work

PIECE = "budget"


def planned(place: Setting, models: Sequence[Mapping[str, Any]]) -> list[tuple[str, Stage, Method, int]]:
    """(name of the stage, stage, method, place of the model) of everything that is to be trained.

    The domain stage starts from the model that the task stage chooses; before that, from the best of the ranking.
    """
    plan, found = place.plan, []
    if plan.task is not None:
        found += [("task", plan.task, method, n) for n in range(len(models)) for method in plan.task.methods]
    if plan.combine is not None:
        found += [("combine", plan.combine, method, 0) for method in plan.combine.methods]
    if plan.domain is not None:
        methods = [plan.domain.source_only, *plan.domain.methods]
        found += [("domain", plan.domain, method, 0) for method in methods]
    return found


def check_and_fit(
    place: Setting, models: Sequence[Mapping[str, Any]]
) -> tuple[set[tuple[str, str, str]], int, list[str]]:
    """Names (stage, model, method) of what is trained, the number of seeds, and what the budget leaves out.

    Without a budget nothing is measured, and the trainers are made only to say whether each method fits its model.

    Raises:
        ValueError: a method does not fit a model, or the budget is too small.
    """
    plan = place.plan
    is_limited = plan.minutes is not None or plan.memory is not None
    steps = STEPS if is_limited else 0
    work = [cost_of(place, models[one[3]], *one, steps=steps) for one in planned(place, models)]
    for rank, one in enumerate(place.ranked if plan.checks else ()):
        work += [cost_of(place, one, CHECK, place.of_check, method, rank, steps) for method in place.of_check.methods]
    if not is_limited:
        return {one.name for one in work}, plan.seeds, []
    work = [*pretraining_work(plan, place.store, place.progress, place.rows, STEPS), *work]
    depends = {
        "plan": {name: value for name, value in plan.given.items() if name != "publish"},
        "rows": place.rows["fingerprints"],
        "models": [model["revision"] for model in models],
    }
    found = place.store.find(PIECE, depends)
    if found is None:
        left, seeds, told = fit(with_staying(work), plan.seeds, plan.minutes, plan.memory)
        found = place.store.keep(PIECE, depends, {"left": [one.name for one in left], "seeds": seeds, "told": told})
    return {tuple(name) for name in found["left"]}, found["seeds"], found["told"]


def check_methods(place: Setting, models: Sequence[Mapping[str, Any]]) -> None:
    """Raises ValueError where a method of `task` or `domain` does not fit a model; combinations need the ranking.

    Args:
        place: where to work.
        models: candidates.
    """
    place = replace(place, plan=replace(place.plan, combine=None))
    for name, stage, method, rank in planned(place, models):
        cost_of(place, models[rank], name, stage, method, rank, steps=0)


def cost_of(
    place: Setting, model: Mapping[str, Any], name: str, stage: Stage, method: Method, rank: int, steps: int
) -> Work:
    """What a method on a model costs; nothing where no steps are measured.

    Args:
        place: where to work.
        model: a candidate.
        name: of the stage.
        stage: of the plan.
        method: of the stage.
        rank: of the model, from 0.
        steps: to measure.
    """
    settings = stage.settings(method)
    training = make_training(name, stage, as_measured(method, model), model, place, settings[0])
    measured = measure(training, place.store, place.progress, steps)
    if not steps:
        return Work(name, model["shown"], method.label, rank, 0.0, 0.0, 0)
    batch, whole = training.settings["per_device_train_batch_size"], training.settings["max_steps"]
    rows = place.rows["rows"]
    held_out = rows.get("validation", 0)
    trials = sum(
        count * minutes_of(measured, taken, held_out, batch) for count, taken in rounds_of(len(settings), whole)
    )
    whole_training = minutes_of(measured, whole, held_out + rows.get("test", 0), batch)
    return Work(name, model["shown"], method.label, rank, trials, whole_training, measured["memory"])


def as_measured(method: Method, model: Mapping[str, Any]) -> Method:
    """The method; of a model that is not there yet without its adapter, which no random weights can have."""
    if not model.get(STANDS_IN):
        return method
    return replace(method, arguments={name: value for name, value in method.arguments.items() if name != "peft"})
