"""What a plan would do and cost, without training or downloading anything; its output folder is not touched.

Every method takes a few steps on the first candidate that is on this machine; for others the time of a step and the
memory grow as the bytes of the weights do. The order of the candidates is not known before they are ranked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import try_to_load_from_cache

from hf_transfer.hub import local_model_folder
from hf_transfer.runs.lifecycle.budget import GIGABYTE, Work, fit, with_staying
from hf_transfer.runs.lifecycle.candidates import find_candidates
from hf_transfer.runs.lifecycle.measure import STEPS
from hf_transfer.runs.lifecycle.outcome import aligned
from hf_transfer.runs.lifecycle.plan import ARCHITECTURE, Plan
from hf_transfer.runs.lifecycle.progress import Progress
from hf_transfer.runs.lifecycle.rows import prepare_rows
from hf_transfer.runs.lifecycle.schedule import cost_of, planned
from hf_transfer.runs.lifecycle.stages import Setting
from hf_transfer.runs.lifecycle.store import Store

CHECKPOINTS, COPIES = 2, 3
"""Checkpoints of a training that is going on, and how many times the weights each holds with Adam's states."""


@dataclass(frozen=True)
class Estimate:
    """The answer of a dry run.

    Args:
        rows: by role.
        labels: what they are, in words.
        candidates: with `shown`, `bytes` and `is_here`.
        work: what is trained: stage, model, method, minutes of search and of a seed, bytes of memory.
        seeds: how many.
        left_out: what the budget leaves out, and why.
        measured_on: the model that steps were measured on; None where none is on this machine.
        disk: bytes that are written at most at one time.
        download: bytes that are downloaded.
        output_dir: of the plan.
        hub_model_id: where the model is published.
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
        places = [
            [one["shown"], size(one["bytes"]), "here" if one["is_here"] else "on the Hub"] for one in self.candidates
        ]
        lines += ["Candidates:", *(f"  {line}" for line in aligned(places))]
        if self.measured_on is None:
            lines.append("Minutes and memory are not known: no candidate is on this machine to measure on.")
        else:
            table = [["stage", "model", "method", "minutes", "memory"]]
            for one in self.work:
                cells = [one.stage, one.model, one.method, f"{one.minutes(self.seeds):.2f}", size(one.memory)]
                table.append(cells)
            lines += [f"Trainings, measured on {self.measured_on}:", *(f"  {line}" for line in aligned(table))]
            lines.append(f"About {self.minutes:.1f} minutes in all, {self.seeds} seeds.")
        lines += self.left_out
        lines.append(
            f"Disk: at most about {size(self.disk)} in {self.output_dir}; {size(self.download)} are downloaded."
        )
        written = f"Written: {self.output_dir}/model, report.html, report.md and report.json."
        lines.append(written + (f" Published: {self.hub_model_id}." if self.hub_model_id else ""))
        return "\n".join(lines)


def estimate(plan: Plan) -> Estimate:
    """Read the data, ask for the candidates, and measure.

    Raises:
        ValueError: unusable data, a method that does not fit the model, or a budget that is too small.
    """
    with TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "dry_run")
        progress = Progress(store.root, quiet=True)
        with progress.quiet():
            rows = prepare_rows(plan, store)
        found = [{**one, "is_here": is_here(one)} for one in find_candidates(plan, store)]
        shown = {one["name"]: one["shown"] for one in found}
        revisions = {one["name"]: one["revision"] for one in found}
        place = Setting(plan, store, progress, rows, None, revisions, shown, seeds=plan.seeds)
        here = next((one for one in found if one["is_here"]), None)
        named = [one for one in found if ARCHITECTURE not in one]
        several = len(named) > 1 or "rank" in plan.given
        models = named[: plan.top if several else None] + [one for one in found if ARCHITECTURE in one]
        work = [] if here is None else scaled_work(place, models, here)
        data = sum(path.stat().st_size for path in Path(rows["folder"]).rglob("*") if path.is_file())
    left, seeds, told = (
        fit(with_staying(work), plan.seeds, plan.minutes, plan.memory) if work else ([], plan.seeds, [])
    )
    largest = max(one["bytes"] or 0 for one in found)
    models_kept = sum(1 for _ in planned(plan, models)) * plan.seeds + 1 + CHECKPOINTS * COPIES
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
    )


def scaled_work(place: Setting, models: list[dict[str, Any]], here: Mapping[str, Any]) -> list[Work]:
    """What every method costs, from the steps on the model that is here; combinations need the ranking."""
    found, plan = [], replace(place.plan, combine=None)
    measured: dict[tuple[str, str], Work] = {}
    for name, stage, method, rank in planned(plan, models):
        if (name, method.label) not in measured:
            measured[name, method.label] = cost_of(place, here, name, stage, method, rank, steps=STEPS)
        one, model = measured[name, method.label], models[rank]
        share = (model["bytes"] or here["bytes"]) / (here["bytes"] or 1)
        costs = {"search": one.search * share, "training": one.training * share, "memory": int(one.memory * share)}
        found.append(replace(one, model=model["shown"], rank=rank, **costs))
    return found


def is_here(candidate: Mapping[str, Any]) -> bool:
    """Whether a model is a folder, in the Hub's cache, or random weights."""
    name = candidate["name"]
    if ARCHITECTURE in candidate or local_model_folder(name) is not None:
        return True
    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def size(count: int | None) -> str:
    """Bytes in words."""
    if count is None:
        return "unknown size"
    return f"{count / GIGABYTE:.2f} GB" if count >= GIGABYTE / 10 else f"{count / 1e6:.1f} MB"
