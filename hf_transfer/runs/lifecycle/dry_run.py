"""What a plan would do and cost, without training or downloading anything; its output folder is not touched.

Every method takes a few steps on the first candidate that is on this machine, or on the random weights that one which
is to be pre-trained starts from; for others the time of a step and the memory grow as the bytes of the weights do. The
Hub is asked for these sizes. The order of the candidates is not known before they are ranked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import try_to_load_from_cache

from hf_transfer.hub import local_model_folder
from hf_transfer.models.revisions import split_revision
from hf_transfer.multi_model.ranked_models import RANKING_FILE
from hf_transfer.runs.lifecycle.budget import GIGABYTE, Work, fit, with_staying
from hf_transfer.runs.lifecycle.candidates import TROUBLE, by_name, find_candidates
from hf_transfer.runs.lifecycle.measure import STEPS
from hf_transfer.runs.lifecycle.methods import FINE_TUNING, Method
from hf_transfer.runs.lifecycle.outcome import aligned
from hf_transfer.runs.lifecycle.plan import ARCHITECTURE, Plan
from hf_transfer.runs.lifecycle.progress import Progress
from hf_transfer.runs.lifecycle.rows import prepare_rows, problem_type_of
from hf_transfer.runs.lifecycle.schedule import cost_of, planned
from hf_transfer.runs.lifecycle.stages import CHECK, Setting
from hf_transfer.runs.lifecycle.store import Store
from hf_transfer.runs.lifecycle.zoo import pretraining_work, stand_ins

CHECKPOINTS, COPIES = 2, 3
"""Checkpoints of a training that is going on, and how many times the weights each holds with Adam's states."""


@dataclass(frozen=True)
class Estimate:
    """The answer of a dry run.

    Args:
        rows: by role.
        labels: what they are, in words.
        candidates: with `shown`, `bytes`, `is_here`, and `trouble` where the Hub said nothing.
        work: what is trained: stage, model, method, minutes of search and of a seed, bytes of memory.
        seeds: how many.
        left_out: what the budget leaves out, and why.
        measured_on: the model that steps were measured on; None where none is on this machine.
        disk: bytes that are written at most at one time.
        download: bytes that are downloaded.
        output_dir: of the plan.
        hub_model_id: where the model is published.
        bounds: in words, which costs are bounds.
    """

    rows: Mapping[str, int]
    labels: str
    candidates: list[dict[str, Any]]
    work: list[Work]
    seeds: int
    left_out: list[str]
    measured_on: str | None
    disk: int
    download: int
    output_dir: str
    hub_model_id: str | None
    bounds: list[str] = field(default_factory=list)

    @property
    def minutes(self) -> float:
        """Of all trainings."""
        return sum(one.minutes(self.seeds) for one in self.work)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "minutes": self.minutes}

    def in_words(self) -> str:
        """Lines for the terminal."""
        lines = ["Data: " + ", ".join(f"{count} {role}" for role, count in self.rows.items()) + f"; {self.labels}"]
        places = [[one["shown"], size(one["bytes"]), place_in_words(one)] for one in self.candidates]
        lines += ["Candidates:", *(f"  {line}" for line in aligned(places))]
        if self.measured_on is None:
            lines.append("Minutes and memory of the stages are not known: no candidate is here to measure on.")
        if self.work:
            table = [["stage", "model", "method", "minutes", "memory"]]
            for one in self.work:
                cells = [one.stage, one.model, one.method, f"{one.minutes(self.seeds):.2f}", size(one.memory)]
                table.append(cells)
            on = f", measured on {self.measured_on}" if self.measured_on is not None else ""
            lines += [f"Trainings{on}:", *(f"  {line}" for line in aligned(table))]
            lines += self.bounds
            lines.append(f"About {self.minutes:.1f} minutes in all, {self.seeds} seeds.")
        lines += self.left_out
        unknown = sum(one["bytes"] is None and not one["is_here"] for one in self.candidates)
        more = f", and {unknown} of unknown size" if unknown else ""
        lines.append(
            f"Disk: at most about {size(self.disk)} in {self.output_dir}; {size(self.download)} are downloaded{more}."
        )
        written = f"Written: {self.output_dir}/model, report.html, report.md and report.json."
        lines.append(written + (f" Published: {self.hub_model_id}." if self.hub_model_id else ""))
        return "\n".join(lines)


def place_in_words(candidate: Mapping[str, Any]) -> str:
    """Where a candidate is, or why nothing is known of it."""
    if candidate.get("is_made"):
        return "pre-trained by this plan"
    if candidate["is_here"]:
        return "here"
    return f"on the Hub, which did not tell: {candidate[TROUBLE]}" if TROUBLE in candidate else "on the Hub"


def estimate(plan: Plan) -> Estimate:
    """Read the data, ask for the candidates, and measure.

    Raises:
        ValueError: unusable data, a method that does not fit the model, fewer candidates than `combine` draws on, or a
            budget that is too small.
    """
    with TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "dry_run")
        progress = Progress(store.root, quiet=True)
        with progress.quiet():
            rows = prepare_rows(plan, store)
        plan = plan.with_usual_methods(problem_type_of(rows))
        made = pretraining_work(plan, store, progress, rows, STEPS)
        found = candidates_of(plan, store, {one.model: one for one in made})
        usable = [one for one in found if one["name"] is not None]
        revisions, shown = by_name(usable, "revision"), by_name(usable, "shown")
        place = Setting(plan, store, progress, rows, None, revisions, shown, seeds=plan.seeds)
        here = next((one for one in usable if one["is_here"]), None)
        named = [one for one in usable if is_ranked(one)]
        several = len(named) > 1 or "rank" in plan.given
        models = named[: plan.top if several else None] + [one for one in usable if not is_ranked(one)]
        work, bounds = list(made), []
        if here is not None and models:
            work += scaled_work(place, models, here)
            work += check_work(place, named, here) if plan.checks else []
            if plan.combine is not None:
                combined, bounds = combine_work(place, named, models[0], here)
                work += combined
        data = sum(path.stat().st_size for path in Path(rows["folder"]).rglob("*") if path.is_file())
    work = with_staying(work)
    left, seeds, told = fit(work, plan.seeds, plan.minutes, plan.memory) if work else ([], plan.seeds, [])
    largest = max((one["bytes"] or 0 for one in found), default=0)
    models_kept = sum(1 for _ in planned(place, models)) * plan.seeds + 1 + CHECKPOINTS * COPIES + len(made)
    return Estimate(
        rows=rows["rows"],
        labels=rows["labels"],
        candidates=found,
        work=left,
        seeds=seeds,
        left_out=told,
        measured_on=None if here is None else here["shown"],
        disk=data + models_kept * largest,
        download=sum(one["bytes"] or 0 for one in found if not one["is_here"]),
        output_dir=str(plan.output_dir),
        hub_model_id=plan.hub_model_id,
        bounds=bounds,
    )


def candidates_of(plan: Plan, store: Store, made: Mapping[str, Work]) -> list[dict[str, Any]]:
    """Those that the plan pre-trains, as they are before, and the others, with `is_here` and `is_made`.

    Args:
        plan: of the lifecycle.
        store: of finished pieces.
        made: what pre-training costs, by the name of the model.
    """
    first = {one["shown"]: one for one in stand_ins(plan, store)}
    before = [
        {
            **first.get(name, {"name": name, "shown": name, "revision": None}),
            **{"bytes": work.weights, "is_made": True, "is_here": name in first},
        }
        for name, work in made.items()
    ]
    others = find_candidates(plan, store, tolerant=True)
    return before + [{**one, "is_here": one["name"] is not None and is_here(one)} for one in others]


def is_ranked(candidate: Mapping[str, Any]) -> bool:
    """Whether a candidate takes part in the ranking; random weights always go on without it."""
    return candidate.get("is_made", False) or ARCHITECTURE not in candidate


def scaled_work(place: Setting, models: list[dict[str, Any]], here: Mapping[str, Any]) -> list[Work]:
    """What every method of `task` and `domain` costs, from the steps on the model that is here."""
    found, place = [], replace(place, plan=replace(place.plan, combine=None))
    measured: dict[tuple[str, str], Work] = {}
    for name, stage, method, rank in planned(place, models):
        if (name, method.label) not in measured:
            measured[name, method.label] = cost_of(place, here, name, stage, method, rank, steps=STEPS)
        one, model = measured[name, method.label], models[rank]
        found.append(scaled(one, model, rank, share_of(model, here)))
    return found


def check_work(place: Setting, named: list[dict[str, Any]], here: Mapping[str, Any]) -> list[Work]:
    """What fine-tuning every ranked model costs, from the steps on the model that is here."""
    (method,) = place.of_check.methods
    one = cost_of(place, here, CHECK, place.of_check, method, 0, steps=STEPS)
    return [scaled(one, model, rank, share_of(model, here)) for rank, model in enumerate(named)]


def combine_work(
    place: Setting, named: list[dict[str, Any]], first: Mapping[str, Any], here: Mapping[str, Any]
) -> tuple[list[Work], list[str]]:
    """What the methods of `combine` cost, and in words what is a bound only.

    They are measured with the first candidates in the place of the best ones, where these are on this machine.
    Elsewhere a bound is given: every model of a combination costs at most what fine-tuning it alone does.

    Args:
        place: where to work.
        named: candidates that are ranked.
        first: that the stage starts from.
        here: the model to measure on.

    Raises:
        ValueError: there are fewer candidates than the stage draws on.
    """
    stage, told = place.plan.combine, []
    if len(named) < stage.top:
        raise ValueError(
            f"`combine.top` is {stage.top}, and {len(named)} candidates are ranked: name more, or lower it."
        )
    drawn = [one for one in named if one["is_here"] and not one.get("is_made")][: stage.top]
    if len(drawn) == stage.top:
        folder = place.store.root / "order"
        folder.mkdir()
        order = [{"model": one["name"], "score": -n} for n, one in enumerate(drawn)]
        (folder / RANKING_FILE).write_text(json.dumps({"rows": order}), encoding="utf-8")
        ranked = replace(place, ranking=folder)
        return [cost_of(ranked, drawn[0], "combine", stage, one, 0, steps=STEPS) for one in stage.methods], told
    alone = cost_of(place, here, "task", stage, Method(FINE_TUNING), 0, steps=STEPS)
    share = sum(share_of(one, here) for one in named[: stage.top])
    found = [replace(scaled(alone, first, 0, share), stage="combine", method=one.label) for one in stage.methods]
    told.append(
        f"Of `combine` these are bounds: what fine-tuning each of its {stage.top} models alone takes, as not all of "
        "them are here to measure on."
    )
    return found, told


def share_of(model: Mapping[str, Any], here: Mapping[str, Any]) -> float:
    """How many times the weights of the model that is measured another one has; 1 where that is not known."""
    return (model["bytes"] or here["bytes"] or 1) / (here["bytes"] or model["bytes"] or 1)


def scaled(one: Work, model: Mapping[str, Any], rank: int, share: float) -> Work:
    """A cost as that of a model of so many times the weights."""
    costs = {"search": one.search * share, "training": one.training * share, "memory": int(one.memory * share)}
    return replace(one, model=model["shown"], rank=rank, **costs)


def is_here(candidate: Mapping[str, Any]) -> bool:
    """Whether a model is a folder, in the Hub's cache, or random weights."""
    name = candidate["name"]
    if ARCHITECTURE in candidate or local_model_folder(name) is not None:
        return True
    repo_id, revision = split_revision(name)
    return isinstance(try_to_load_from_cache(repo_id, "config.json", revision=revision), str)


def size(count: int | None) -> str:
    """Bytes in words."""
    if count is None:
        return "unknown size"
    return f"{count / GIGABYTE:.2f} GB" if count >= GIGABYTE / 10 else f"{count / 1e6:.1f} MB"
