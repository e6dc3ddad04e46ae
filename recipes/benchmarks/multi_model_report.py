"""The tables and the picture of the benchmark of many models, and what was expected of them."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch
from cells import as_columns, mean_and_deviation, plot_accuracies, write_report
from machine import processor_names

ALONE = "alone"
PICK = "LogME pick"
OF_FINE_TUNED = ("ensemble", "greedy ensemble", "uniform soup", "greedy soup", "task arithmetic", "TIES", "RegMean")
OF_FINE_TUNED += ("distillation",)
"""Rows that need every member to be fine-tuned first, which their training includes."""
Runs = dict[str, dict[str, Any]]
"""Seed -> figures."""


def write(made: dict[str, dict[str, Runs]], folder: Path) -> None:
    """`multi_model.json`, `.md` and `.png` of the finished cells, pair -> row -> seed -> figures."""
    machine = f"{processor_names()[0]}, one thread, torch {torch.__version__}, float32."
    stored = {pair: {row: as_columns(runs) for row, runs in table.items()} for pair, table in made.items()}
    tables = {pair: with_pick(table) for pair, table in made.items()}
    lines = ["# Many pre-trained models", "", machine, "", INTRODUCTION]
    for pair, table in tables.items():
        lines += ["", f"## {pair}", "", *table_of(table)]
    if any(pair.startswith("zoo") for pair in tables):
        lines += ["", "## Expected and found", "", *expectations(tables)]
    write_report(folder, "multi_model", {"machine": machine, "pairs": stored}, "\n".join(lines) + "\n")
    accuracies = {
        pair: {row: [100 * run["accuracy"] for run in runs.values()] for row, runs in table.items()}
        for pair, table in tables.items()
    }
    plot_accuracies(accuracies, PICK, folder / "multi_model.png")


INTRODUCTION = """\
Accuracy in % and negative log-likelihood on rows that nothing was trained or chosen on, mean ± standard deviation
over the seeds; targets have 10 labels a class, emoji50 has 50. `alone` is plain fine-tuning of one member; the pick
is, seed by seed, the one of the highest LogME on the training rows. Ensembles, soups and merged models are made of
all fine-tuned members; the greedy ones choose by 5 further rows a class. Trained methods start from the pick. GFLOPs
are of a row, counted by PyTorch: of a training step (of what is made of fine-tuned members, theirs are added),
without what is computed once before, and of a prediction. Rows a second are of one thread's processor time."""


def with_pick(table: dict[str, Runs]) -> dict[str, Runs]:
    """The table with the pick behind the rows of single members."""
    alone = {row: runs for row, runs in table.items() if row.startswith(ALONE)}
    seeds = set.intersection(*(set(runs) for runs in alone.values())) if alone else set()
    picks = {seed: max(alone.values(), key=lambda runs: runs[seed]["logme"])[seed] for seed in sorted(seeds)}
    rest = {row: runs for row, runs in table.items() if row not in alone}
    return {**alone, **({PICK: picks} if picks else {}), **rest}


def best_single(table: dict[str, Runs]) -> str:
    """The member that is best on the test rows when fine-tuned alone, which nobody knows before."""
    alone = [row for row in table if row.startswith(ALONE)]
    return max(alone, key=lambda row: mean_of(table[row], "accuracy"))


def mean_of(runs: Runs, key: str) -> float:
    return statistics.mean(run[key] for run in runs.values())


def training_cost(table: dict[str, Runs], row: str) -> float:
    """GFLOPs a row of a training step, with those of the members that have to be fine-tuned first."""
    first = [runs for name, runs in table.items() if name.startswith(ALONE)] if row in OF_FINE_TUNED else []
    own = [table[row]] if "train_gflops" in next(iter(table[row].values())) else []
    return sum(mean_of(runs, "train_gflops") for runs in [*first, *own])


def table_of(table: dict[str, Runs]) -> list[str]:
    head = ["row", "seeds", "accuracy", "NLL", "million parameters", "train GFLOPs", "GFLOPs"]
    head += ["train rows/s", "rows/s"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    best = best_single(table)
    for row, runs in table.items():
        cells = [f"{row} (best)" if row == best else row, str(len(runs))]
        cells.append(mean_and_deviation([100 * run["accuracy"] for run in runs.values()]))
        cells.append(mean_and_deviation([run["nll"] for run in runs.values()], 2))
        cells.append(f"{mean_of(runs, 'parameters') / 1e6:.2f}")
        cells += [f"{training_cost(table, row):.4f}", f"{mean_of(runs, 'gflops'):.4f}"]
        speeds = [run["train_rows_per_second"] for run in runs.values() if "train_rows_per_second" in run]
        cells += [f"{statistics.mean(speeds):.0f}" if speeds else "-", f"{mean_of(runs, 'rows_per_second'):.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def points(table: dict[str, Runs], row: str, other: str) -> str:
    """By how many points a row is above another, over the seeds that both have: mean, and the standard error."""
    seeds = sorted(set(table[row]) & set(table[other]))
    gains = [100 * (table[row][seed]["accuracy"] - table[other][seed]["accuracy"]) for seed in seeds]
    error = f" (standard error {statistics.stdev(gains) / len(gains) ** 0.5:.1f})" if len(gains) > 1 else ""
    return f"{statistics.mean(gains):+.1f}{error}"


def expectations(tables: dict[str, dict[str, Runs]]) -> list[str]:
    """What was expected before the first run, and the figures."""
    lines = ["| pair | expected | found |", "|---|---|---|"]
    for pair, table in tables.items():
        best = best_single(table)
        wanted = [
            (PICK, best, "one LogME pick within 0.5 points of the best single", None),
            ("zoo_tuning", best, "Zoo-Tuning above the best single at no more than 1.2 times its GFLOPs", best),
            (
                "zoo_tuning, lite",
                "zoo_tuning",
                "Lite within 0.7 points of Zoo-Tuning at a single model's GFLOPs",
                best,
            ),
            ("hub_pathway", best, "Hub-Pathway above the best single, at half the ensemble's GFLOPs", "ensemble"),
            ("b_tuning", PICK, "B-Tuning above plain fine-tuning of the same model", None),
        ]
        for row, other, words, costs in wanted:
            if row in table and other in table:
                found = f"{points(table, row, other)} points"
                if costs in table:
                    found += (
                        f", {mean_of(table[row], 'gflops') / mean_of(table[costs], 'gflops'):.2f} times its GFLOPs"
                    )
                lines.append(f"| {pair} | {words} | {found} |")
    return lines
