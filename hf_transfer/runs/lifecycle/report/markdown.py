"""The report as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from hf_transfer.runs.lifecycle.cells import (
    ENTRY_COLUMNS,
    PRETRAINED_COLUMNS,
    TRIAL_COLUMNS,
    class_cells,
    entry_cells,
    pretrained_cells,
    ranking_cells,
    trial_cells,
)


def to_markdown(facts: Mapping[str, Any]) -> str:
    """The report without its pictures.

    Args:
        facts: of `report_facts`.
    """
    parts = [f"# {facts['title']}", facts["verdict"], f"The model is in `{facts['model']}`."]
    if facts["published"]:
        parts.append(f"Published: {facts['published']}")
    parts += [f"- {note}" for note in facts["notes"]]
    parts += ["## All entries", table(ENTRY_COLUMNS, [entry_cells(row) for row in facts["entries"]])]
    if facts["pretrained"]:
        rows = [pretrained_cells(row) for row in facts["pretrained"]]
        parts += ["## Pre-trained", table(PRETRAINED_COLUMNS, rows)]
    if facts["ranking"] is not None:
        ranking = facts["ranking"]
        rows = [ranking_cells(place, row) for place, row in enumerate(ranking["rows"], start=1)]
        parts += ["## Ranking", table(["rank", "model", ranking["score"], "± s.e.", "layer", "parameters"], rows)]
        parts.append("\n".join(f"- {sentence}" for sentence in ranking["words"]))
    if facts["trials"]:
        parts += ["## Trials of the search", table(TRIAL_COLUMNS, [trial_cells(row) for row in facts["trials"]])]
    if facts["per_class"]:
        parts += [f"## Each class on the {facts['role']} rows", table(*class_cells(facts["per_class"]))]
    if facts["confusion"]:
        names = facts["confusion"]["names"]
        counts = [[name, *map(str, row)] for name, row in zip(names, facts["confusion"]["counts"])]
        parts += [f"## Confusion on the {facts['role']} rows", table(["true \\ predicted", *names], counts)]
    if facts["wrong"]:
        rows = [
            [str(one["row"]), one.get("text", ""), one["label"], one["predicted"], f"{one['probability']:.2f}"]
            for one in facts["wrong"]
        ]
        parts += ["## Wrong, and most certain", table(["row", "text", "label", "predicted", "probability"], rows)]
    cost = [[name.replace("_", " "), str(value)] for name, value in facts["cost"].items()]
    parts += ["## Cost", table(["what", "value"], cost)]
    plan = yaml.safe_dump(json.loads(json.dumps(facts["plan"], default=str)), sort_keys=False)
    parts += ["## Plan", f"```yaml\n{plan}```", ", ".join(f"{k} {v}" for k, v in facts["versions"].items())]
    return "\n\n".join(parts) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a bar or a new line inside a cell breaks none."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines)
