"""The report as one page that needs nothing else: charts are SVG, pictures are in it, colours follow the reader's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml
from jinja2 import Environment
from markupsafe import Markup

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
from hf_transfer.runs.lifecycle.report import charts

TEMPLATE = "page.html"
MOST_CLASSES = 30
"""Classes up to which the confusion matrix is shown."""


def to_html(facts: Mapping[str, Any]) -> str:
    """The page.

    Args:
        facts: of `report_facts`.
    """
    template = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    plan = yaml.safe_dump(json.loads(json.dumps(facts["plan"], default=str)), sort_keys=False)
    return (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(template)
        .render(
            facts=facts,
            entry_columns=ENTRY_COLUMNS,
            entries=[(row["chosen"], entry_cells(row)) for row in facts["entries"]],
            pretrained_columns=PRETRAINED_COLUMNS,
            pretrained=[pretrained_cells(row) for row in facts["pretrained"]],
            trial_columns=TRIAL_COLUMNS,
            trials=[trial_cells(row) for row in facts["trials"]],
            classes=class_cells(facts["per_class"]),
            plan=plan,
            **{name: Markup(value) for name, value in pictures(facts).items()},
            ranking_rows=[
                ranking_cells(n, row) for n, row in enumerate((facts["ranking"] or {"rows": ()})["rows"], 1)
            ],
        )
    )


def pictures(facts: Mapping[str, Any]) -> dict[str, str]:
    """Every chart by its name in the template; empty where there is nothing to draw."""
    ranking, seen, matrix = facts["ranking"], facts["embeddings"], facts["confusion"]
    scored = [row for row in (ranking or {"rows": ()})["rows"] if row["score"] is not None]
    order = sorted(set(seen["groups"]))
    clouds = "".join(
        charts.scatter(seen[when], seen["groups"], order, title)
        for when, title in (("before", "before the training"), ("after", "after the training"))
        if when in seen
    )
    return {
        "ranking_chart": charts.dots([(r["model"], r["score"], r["standard_error"]) for r in scored], ranking["score"])
        if scored
        else "",
        "curves": charts.lines(facts["curves"], "step", "loss"),
        "clouds": f'<div class="pair">{clouds}</div>{charts.legend(order) if len(order) <= MOST_CLASSES else ""}',
        "confusion_table": charts.confusion(**matrix) if matrix and len(matrix["names"]) <= MOST_CLASSES else "",
    }
