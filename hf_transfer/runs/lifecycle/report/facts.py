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
        "pretrained": [pretrained_facts(record) for record in place.pretrained],
        "entries": table,
        "weighted_tau": outcome.weighted_tau,
        "trials": [
            {"stage": entry.stage, "model": entry.model, "method": entry.method, **trial}
            for entry in outcome.entries
            for trial in entry.trials
        ],
        "notes": [*place.notes, *outcome.check_in_words(), *outcome.chosen.best.get("warnings", [])],
        "curves": {
            **{f"pretrain: {record['shown']}": record["losses"] for record in place.pretrained},
            **{f"{one.stage}: {one.method} on {one.model}": one.best["losses"] for one in outcome.entries},
        },
        **{name: seen[name] for name in ("role", "figures", "per_class", "confusion", "wrong", "embeddings")},
        "cost": {
            "trainings": len(place.pretrained) + sum(len(one.records) + len(one.trials) for one in outcome.entries),
            "seconds_of_pretraining": round(sum(record["seconds"] or 0.0 for record in place.pretrained), 1),
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


def pretrained_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a candidate that the plan pre-trained: its last loss, and metrics where it had test rows."""
    steps, loss = record["losses"][-1] if record["losses"] else (None, None)
    measured = {name: value for name, value in record["test"].items() if not name.endswith("loss")}
    return {"model": record["shown"], "steps": steps, "loss": loss, "seconds": record["seconds"], "metrics": measured}


def version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
