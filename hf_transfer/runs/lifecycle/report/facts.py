"""Everything that the report says, as plain data: the content of report.json."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from accelerate import PartialState

from hf_transfer.ranking import Ranking
from hf_transfer.runs.lifecycle.outcome import Outcome
from hf_transfer.runs.lifecycle.stages import Setting

VERSIONED = ("hf-transferability", "torch", "transformers", "peft", "datasets")


def report_facts(outcome: Outcome, place: Setting, seen: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a finished plan.

    Args:
        outcome: of the plan.
        place: where it worked.
        seen: of `inspect`.
    """
    rows, table = place.rows, outcome.table()
    return {
        "title": place.store.root.resolve().name,
        "verdict": outcome.verdict(),
        "model": str(outcome.folder),
        "published": outcome.published,
        "data": {"rows": rows["rows"], "labels": rows["labels"], "names": list(dict.fromkeys(rows["names"].values()))},
        "ranking": ranking_facts(place),
        "entries": table,
        "trials": [
            {"stage": entry.stage, "model": entry.model, "method": entry.method, **trial}
            for entry in outcome.entries
            for trial in entry.trials
        ],
        "notes": [*place.notes, *outcome.chosen.best.get("warnings", [])],
        "curves": {f"{one.stage}: {one.method} on {one.model}": one.best["losses"] for one in outcome.entries},
        **{name: seen[name] for name in ("role", "figures", "confusion", "wrong", "embeddings")},
        "cost": {
            "trainings": sum(len(entry.records) + len(entry.trials) for entry in outcome.entries),
            "seconds_of_trainings": round(sum(row["seconds"] for row in table), 1),
            "seconds_of_this_run": round(outcome.seconds, 1),
            "done_now": len(place.progress.done_now),
            "found_done": len(place.progress.done_before),
            "processes": PartialState().num_processes,
        },
        "plan": place.plan.given,
        "versions": {name: version for name in VERSIONED if (version := version_of(name))},
    }


def ranking_facts(place: Setting) -> dict[str, Any] | None:
    """The ranking as rows and sentences; None where there is none."""
    if place.ranking is None:
        return None
    ranking = Ranking.load(place.ranking)
    names = ("model", "score", "standard_error", "layer", "parameters", "reason", "is_baseline", "seconds")
    rows = [
        {
            **{name: getattr(row, name) for name in names},
            "others": ranking.values(row) if row.score is not None else {},
        }
        for row in ranking.renamed(place.shown).rows
    ]
    return {"score": ranking.score, "rows": rows, "words": ranking.renamed(place.shown).in_words()}


def version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
