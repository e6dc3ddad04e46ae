"""Several finished runs in one table: `hf-transfer compare DIR...`.

    mean = (1/n) sum_i m_i,   sd = sqrt( sum_i (m_i - mean)^2 / (n - 1) )

over the n runs that differ in their seed alone, of any metric m.
Read from what every saved model folder holds: `card.json`, `results.json`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_transfer.hub import RunFacts, read_facts
from hf_transfer.runs.saving import read_results

NOT_A_SETTING = ("seed", "num_processes", "training_seconds", "trained_parameters")
"""Of the settings of a training, those in which the runs of one group may differ."""
COSTS = ("training_seconds",)


@dataclass(frozen=True)
class FinishedRun:
    """One saved model.

    Args:
        folder: of the model.
        metrics: name -> value on the test rows.
        seed: None where it is not known.
        settings: what tells it from runs with other settings.
        costs: what it took.
    """

    folder: Path
    metrics: dict[str, float]
    seed: int | None
    settings: dict[str, Any]
    costs: dict[str, float]


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone.

    Args:
        name: methods, and the settings in which it differs from other rows.
        runs: sorted by seed.
        means, deviations: by metric; no deviation of a single run.
    """

    name: str
    runs: list[FinishedRun]
    means: dict[str, float]
    deviations: dict[str, float] = field(default_factory=dict)


def find_runs(folders: Iterable[str | Path]) -> list[FinishedRun]:
    """The finished runs in these folders and below them, each once.

    A plan keeps the model that it chose beside that model's training, and a guard keeps source only in the place of
    what it dropped: a run that says all the same as another, the seconds of its training too, is a copy.

    Raises:
        FileNotFoundError: a folder is not there.
        ValueError: nothing in a folder is a finished run.
    """
    found: dict[Path, FinishedRun] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder `{folder}`.")
        below = [path.parent for path in sorted(folder.rglob("results.json"))]
        runs = [one for one in map(read_run, below) if one is not None]
        if not runs:
            raise ValueError(
                f"`{folder}` holds no finished run: a folder with results.json, such as the output_dir of "
                "`hf-transfer adapt` or `pretrain`."
            )
        found |= {one.folder.resolve(): one for one in runs}
    kept: dict[str, FinishedRun] = {}
    for one in found.values():
        kept.setdefault(_identity(one), one)
    return list(kept.values())


def _identity(run: FinishedRun) -> Any:
    """What two copies of a run have in common; the folder of a run that kept no facts is in its settings."""
    return json.dumps([run.metrics, run.seed, run.settings, run.costs], sort_keys=True, default=str)


def read_run(folder: Path) -> FinishedRun | None:
    """A saved model as a run; None where nothing was measured."""
    results = read_results(folder) or {}
    metrics = {
        name: float(value)
        for name, value in results.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    if not metrics:
        return None
    facts = read_facts(folder)
    if facts is None:  # of a run that kept no facts each folder is a row
        return FinishedRun(folder, metrics, None, {"folder": str(folder)}, {})
    told = facts.hyper_parameters
    costs = {name: float(told[name]) for name in COSTS if name in told}
    return FinishedRun(folder, metrics, told.get("seed"), settings_of(facts), costs)


def settings_of(facts: RunFacts) -> dict[str, Any]:
    """What tells runs apart: methods with their keywords, data, start, and the settings of the training."""
    roles = {data.role: data.name for data in facts.datasets}
    keywords = {
        f"{method.name} {name}": value
        for method in facts.methods
        for name, value in method.hyper_parameters.items()
        if name != "seed"
    }
    return {
        "methods": " + ".join(method.name for method in facts.methods) or _without_method(roles),
        "model": facts.base_model or "random weights",
        "task": facts.task,
        **roles,
        **keywords,
        **{name: value for name, value in facts.hyper_parameters.items() if name not in NOT_A_SETTING},
    }


def _without_method(roles: dict[str, str]) -> str:
    return "source only" if "source" in roles else "fine-tuning"


def rows_of(runs: Sequence[FinishedRun], best: str | None = None) -> list[Row]:
    """One row for all runs that differ in their seed alone.

    Args:
        runs: finished ones.
        best: metric by which the rows are sorted, highest first; in the order given without it.

    Raises:
        ValueError: no run has the metric.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.settings, sort_keys=True, default=str), []).append(run)
    differing = _differing([group[0].settings for group in groups.values()])
    rows = [_row(group, differing) for group in groups.values()]
    if best is None:
        return rows
    names = sorted({name for row in rows for name in row.means})
    if best not in names:
        raise ValueError(f"no run has the metric `{best}`; measured: {names}.")
    return sorted(rows, key=lambda row: -row.means.get(best, -math.inf))


def _differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Settings that are not alike in all rows, `methods` apart."""
    names = dict.fromkeys(name for one in settings for name in one)
    common = [name for name in names if all(name in one for one in settings)]
    return [name for name in common if name != "methods" and len({str(one[name]) for one in settings}) > 1]


def _row(group: list[FinishedRun], differing: Sequence[str]) -> Row:
    group = sorted(group, key=lambda run: (run.seed is None, run.seed))
    settings = group[0].settings
    parts = [str(settings["methods"])] if "methods" in settings else [settings["folder"]]
    parts += [f"{name}={settings[name]}" for name in differing if name in settings and name != "folder"]
    means, deviations = {}, {}
    for name in dict.fromkeys(name for run in group for name in (*run.metrics, *run.costs)):
        values = [{**run.metrics, **run.costs}[name] for run in group if name in {**run.metrics, **run.costs}]
        means[name] = statistics.fmean(values)
        if len(values) > 1:
            deviations[name] = statistics.stdev(values)
    return Row(", ".join(parts), group, means, deviations)


def table_of(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Column names and cells, `mean ± sd` where a row has several runs."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.means))
    cells = []
    for row in rows:
        seeds = ", ".join("?" if run.seed is None else str(run.seed) for run in row.runs)
        values = [_cell(row.means.get(name), row.deviations.get(name)) for name in metrics]
        cells.append([row.name, seeds, *values])
    return ["run", "seeds", *metrics], cells


def _cell(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"


def as_json_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for scripts."""
    return [
        {
            "name": row.name,
            "seeds": [run.seed for run in row.runs],
            "folders": [str(run.folder) for run in row.runs],
            "mean": row.means,
            "standard_deviation": row.deviations,
            "values": {name: [{**run.metrics, **run.costs}.get(name) for run in row.runs] for name in row.means},
            "settings": row.runs[0].settings,
        }
        for row in rows
    ]


def as_markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    columns, cells = table_of(rows)
    lines = [columns, ["---", "---", *("--:" for _ in columns[2:])], *cells]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """One line a row, mean and standard deviation in columns of their own."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.means))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["run", "seeds", *(column for name in metrics for column in (name, f"{name}_sd"))])
    for row in rows:
        figures = (value.get(name, "") for name in metrics for value in (row.means, row.deviations))
        writer.writerow([row.name, " ".join(str(run.seed) for run in row.runs), *figures])
    return text.getvalue()


FORMATS = {".md": as_markdown, ".csv": as_csv, ".json": lambda rows: json.dumps(as_json_rows(rows), indent=2) + "\n"}
"""Ending of a file -> what writes it."""
