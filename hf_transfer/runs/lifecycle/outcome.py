"""What came out of a lifecycle: the chosen model, the table of all entries, and the verdict in a sentence."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from accelerate import PartialState
from scipy.stats import weightedtau

from hf_transfer.ranking import Ranking
from hf_transfer.runs.lifecycle.cells import ENTRY_COLUMNS, entry_cells
from hf_transfer.runs.lifecycle.methods import SOURCE_ONLY
from hf_transfer.runs.lifecycle.stages import CHECK, Entry, Setting
from hf_transfer.runs.lifecycle.training import LOWER_IS_BETTER, usual_metric

MODEL = "model"


@dataclass
class Outcome:
    """The result of `Lifecycle.run`.

    Args:
        folder: of the chosen model, which loads with `from_pretrained`.
        chosen: its entry.
        entries: of all stages, in the order of the plan.
        models: that the stages started from.
        rows: facts of the data.
        seconds: of this run of the program.
        ranking: score of every ranked model, as tables call it, best first.
        ranked: these models as candidates.
        published: its address on the Hub, where it was pushed.
    """

    folder: Path
    chosen: Entry
    entries: list[Entry]
    models: list[Mapping[str, Any]]
    rows: Mapping[str, Any]
    seconds: float
    ranking: Mapping[str, float] = field(default_factory=dict)
    ranked: list[dict[str, Any]] = field(default_factory=list)
    published: str | None = None

    @classmethod
    def of(cls, place: Setting, models: list[Mapping[str, Any]], entries: list[Entry], seconds: float) -> Outcome:
        """The best entry of the last of task and combine, or of the domain stage where there is one."""
        domain = [entry for entry in entries if entry.stage == "domain"]
        chosen = max(domain or [one for one in entries if one.stage != CHECK], key=lambda entry: entry.score)
        ranked = [] if place.ranking is None else Ranking.load(place.ranking).renamed(place.shown).candidates
        scores = {row.model: row.score for row in ranked if row.score is not None}
        return cls(place.store.root / MODEL, chosen, entries, models, place.rows, seconds, scores, place.ranked)

    @property
    def metrics(self) -> dict[str, float]:
        """Of the chosen model on the test rows; empty where there are none."""
        return dict(self.chosen.best["test"]) if "test" in self.rows["rows"] else {}

    @property
    def is_main_process(self) -> bool:
        return PartialState().is_main_process

    @property
    def report(self) -> Path:
        """The page that tells what came out."""
        return self.folder.parent / "report.html"

    def to_dict(self) -> dict[str, Any]:
        """For scripts: the verdict, the figures, the table and where everything is."""
        return {
            "verdict": self.verdict(),
            "model": str(self.folder),
            "report": str(self.report),
            "published": self.published,
            "metrics": self.metrics,
            "entries": self.table(),
            "weighted_tau": self.weighted_tau,
        }

    def closing(self) -> str:
        """What the command line shows last: the table, the verdict, and what to type next."""
        rows = [entry_cells(row) for row in self.table()]
        lines = [
            *aligned([ENTRY_COLUMNS, *rows]),
            "",
            self.verdict(),
            *self.check_in_words(),
            f"Model: {self.folder}",
            f"Report: {self.report}",
        ]
        folder = shlex.quote(str(self.folder))
        lines.append(f"Next: hf-transfer predict {folder} --dataset NEW_ROWS")
        if self.published is None:
            lines.append(f"      hf-transfer push {folder} ORG/NAME")
        return "\n".join(lines)

    def table(self) -> list[dict[str, Any]]:
        """A row an entry, for the report."""
        return [self.row(entry) for entry in self.entries]

    def row(self, entry: Entry) -> dict[str, Any]:
        """One entry: what it was chosen by and what it reaches on the test rows, mean and deviation over the seeds."""
        by = entry.records[0]["chosen_by"]
        validation = None if by is None else mean_and_deviation([record["validation"][by] for record in entry.records])
        tests = [record["test"] for record in entry.records] if "test" in self.rows["rows"] else []
        name = usual_metric(tests[0]) if tests and tests[0] else None
        guards = [record["guard"]["kept"] for record in entry.records if record.get("guard")]
        return {
            "stage": entry.stage,
            "model": entry.model,
            "method": entry.method,
            "setting": dict(entry.setting),
            "chosen_by": by,
            "validation": validation,
            "metric": name,
            "test": mean_and_deviation([test[name] for test in tests]) if name else None,
            "kept": ", ".join(sorted(set(guards))) or None,
            "seeds": len(entry.records),
            "parameters": entry.records[0].get("parameters"),
            "seconds": sum(record["seconds"] or 0.0 for record in entry.records),
            "chosen": entry is self.chosen,
        }

    def verdict(self) -> str:
        """The outcome in one or two sentences."""
        row, rows = self.row(self.chosen), self.rows["rows"]
        what = f"{row['model']} adapted by {row['method']}"
        if row["method"] == SOURCE_ONLY:
            what = f"{row['model']} trained on the source only"
        by = row["chosen_by"].replace("_", " ")
        compared = sum(entry.stage != CHECK for entry in self.entries)
        how = f"It was chosen by {by}, {self.chosen_on()}, among {compared} entries."
        how = how if compared > 1 else "It is the only entry."
        if row["test"] is None:
            value = f"{by} {row['validation']['mean']:.3f}"
            return f"{what} has {value}; no labelled test rows were given. {how}"
        count = rows["test"] if self.rows.get("task") is None else None
        value = f"{row['metric'].replace('_', ' ')} {told(row['test'], row['metric'], count)}"
        return f"{what} reaches {value} on {rows['test']} test rows. {how}{self.gain()}"

    @property
    def weighted_tau(self) -> float | None:
        """Agreement of the ranking with the fine-tuned models on the test rows; None where the plan did not check it.

        Kendall's rank correlation in which the best models count more, in [-1, 1].
        """
        reached = {entry.model: self.row(entry) for entry in self.entries if entry.stage == CHECK}
        pairs = [
            (score, -row["test"]["mean"] if row["metric"] in LOWER_IS_BETTER else row["test"]["mean"])
            for model, score in self.ranking.items()
            if (row := reached.get(model)) is not None and row["test"] is not None
        ]
        tau = float(weightedtau(*zip(*pairs)).statistic) if len(pairs) > 1 else math.nan
        return None if math.isnan(tau) else tau

    def check_in_words(self) -> list[str]:
        """A sentence on how well the ranking foretold, where the plan checked it."""
        if self.weighted_tau is None:
            return []
        return [f"The ranking and the fine-tuned models on the test rows: weighted tau {self.weighted_tau:.3f}."]

    def chosen_on(self) -> str:
        if self.chosen.stage == "domain":
            return "without any target label"
        return f"on {self.rows['rows']['validation']} validation rows"

    def gain(self) -> str:
        """What adapting to the domain brought, as the test rows say."""
        source = next((entry for entry in self.entries if entry.method == SOURCE_ONLY), None)
        if source is None or source is self.chosen or self.row(source)["test"] is None:
            return ""
        return f" Source only reaches {self.row(source)['test']['mean']:.3f}."


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines whose columns stand one under the other."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def mean_and_deviation(values: list[float]) -> dict[str, float | None]:
    """Mean and standard deviation over the seeds; None for the deviation of one value."""
    return {"mean": fmean(values), "deviation": stdev(values) if len(values) > 1 else None}


def told(value: Mapping[str, Any], metric: str, rows: int | None) -> str:
    """A figure with its deviation over seeds, or of one seed with the standard error that so few rows bring.

    Args:
        value: mean and deviation.
        metric: its name.
        rows: that it is a share of; None where it is a share of parts of rows.
    """
    mean, deviation = value["mean"], value["deviation"]
    if deviation is not None:
        return f"{mean:.3f} ± {deviation:.3f}"
    if metric != "accuracy" or rows is None:
        return f"{mean:.3f}"
    return f"{mean:.3f} (standard error {math.sqrt(mean * (1 - mean) / rows):.3f})"
