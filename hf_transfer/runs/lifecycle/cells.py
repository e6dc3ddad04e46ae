"""Rows of the tables that a lifecycle shows, as cells of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_transfer.runs.report import figure_names, number

ENTRY_COLUMNS = ["stage", "model", "method", "chosen by", "validation", "test", "seeds", "seconds", ""]
PRETRAINED_COLUMNS = ["model", "steps", "last loss", "test", "seconds"]
TRIAL_COLUMNS = ["stage", "model", "method", "setting", "steps", "score"]


def entry_cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the closing table."""
    setting = ", ".join(f"{name}={value}" for name, value in row["setting"].items())
    method = row["method"] + (f" ({setting})" if setting else "")
    test = "" if row["test"] is None else f"{row['metric']} {with_deviation(row['test'])}"
    marks = [
        word for word in ("chosen" if row["chosen"] else "", f"kept: {row['kept']}" if row["kept"] else "") if word
    ]
    by = "-" if row["chosen_by"] is None else row["chosen_by"].replace("_", " ")
    validation = "-" if row["validation"] is None else with_deviation(row["validation"])
    return [
        *(row["stage"], row["model"], method, by, validation, test.replace("_", " ")),
        *(str(row["seeds"]), f"{row['seconds']:.1f}", "; ".join(marks)),
    ]


def pretrained_cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the table of what the plan pre-trained."""
    steps, loss = ("-" if row[name] is None else f"{row[name]:.6g}" for name in ("steps", "loss"))
    measured = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in row["metrics"].items())
    return [row["model"], steps, loss, measured, f"{row['seconds'] or 0.0:.1f}"]


def trial_cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the table of trials."""
    setting = ", ".join(f"{name}={value}" for name, value in row["setting"].items())
    score = "diverged" if row["score"] is None else f"{row['score']:.4f}"
    return [row["stage"], row["model"], row["method"], setting, str(row["steps"]), score]


def class_cells(per_class: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table of the figures of each class; nothing without any."""
    columns = figure_names(per_class)
    rows = [[name, *(number(figures[column]) for column in columns)] for name, figures in per_class.items()]
    return ["class", *columns], rows


def ranking_cells(place: int, row: Mapping[str, Any]) -> list[str]:
    """A row of the ranking."""
    if row["score"] is None:
        return ["-", row["model"], "failed", "-", "-", "-"]
    error = "-" if row["standard_error"] is None else f"{row['standard_error']:.4f}"
    return [str(place), row["model"], f"{row['score']:.4f}", error, str(row["layer"]), f"{row['parameters'] or 0:,}"]


def with_deviation(value: Mapping[str, float | None]) -> str:
    """Mean and deviation."""
    deviation = "" if value["deviation"] is None else f" ± {value['deviation']:.4f}"
    return f"{value['mean']:.4f}{deviation}"
