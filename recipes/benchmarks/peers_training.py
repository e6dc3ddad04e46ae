"""Whole trainings beside those of other libraries: same data, backbone, first weights, rows a step, steps, seeds.

    python recipes/benchmarks/peers_training.py                                  # pytorch-adapt and skada, three seeds
    python recipes/benchmarks/peers_training.py --only skada --methods dann --seeds 0

MNIST-5k (4,096 labelled digits) to optical digits (1,280 unlabelled, 517 to test on), LeNet, 640 steps of 64 + 64
rows; what each library is told is in peers_training_worker.py. Libraries have environments of their own in --runs_dir,
see peers.py, and take turns in fresh processes on one thread. A cell that is finished in --runs_dir is not run again.
Seconds are of the processor; memory is what the training adds to what the process held.
Writes `peers_training.json` and `.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cells import data_folder, end_by, mean_and_deviation, write_report
from datasets import Dataset
from machine import processor_names
from peers import OURS, PEERS, finished_cell

from hf_transfer.data.bundled import load

WORKER = Path(__file__).with_name("peers_training_worker.py")
LIBRARIES = {OURS: "hf_transfer", **{name: PEERS[name][0] for name in ("pytorch_adapt", "skada")}}
METHODS = ("source_only", "coral", "dann", "cdan")
TRAINED, TARGETS = 4096, 1280


def some_rows(name: str, start: int, end: int | None) -> Dataset:
    rows = load(name).shuffle(seed=0)
    return rows.select(range(start, end or len(rows))).flatten_indices()


ROWS: dict[str, Callable[[], Dataset]] = {
    "source": partial(some_rows, "mnist5k", 0, TRAINED),
    "target": partial(some_rows, "optical_digits", 0, TARGETS),
    "test": partial(some_rows, "optical_digits", TARGETS, None),
}


def run_cell(library: str, method: str, seed: int, runs_dir: Path) -> dict[str, Any]:
    """Figures of a training, or why there are none."""

    def arguments() -> list[str]:
        rows = {Path(data_folder(ROWS, name, runs_dir)).parent for name in ROWS}
        return [library, method, str(seed), str(*rows)]

    kept = runs_dir / "trainings" / f"{library}-{method}-{seed}.json"
    return finished_cell(kept, library, WORKER, arguments, runs_dir)


def markdown(report: dict[str, Any]) -> str:
    """A line a library and method."""
    lines = ["# Trainings beside those of other libraries", "", report["machine"], "", report["settings"], ""]
    lines += ["| method | library | seeds | accuracy, % | seconds | MiB | lines |", "|---|---|--:|--:|--:|--:|--:|"]
    for method, libraries in report["methods"].items():
        for library, runs in libraries.items():
            good = [run for run in runs.values() if "error" not in run]
            if not good:
                reason = next(iter(runs.values()))["error"].replace("|", "/")
                lines.append(f"| {method} | {LIBRARIES[library]} | | not measured: {reason} | | | |")
                continue
            cells = [mean_and_deviation([run[name] for run in good]) for name in ("accuracy", "seconds", "memory")]
            last = f"{len(good)} | {' | '.join(cells)} | {good[0]['lines']}"
            lines.append(f"| {method} | {LIBRARIES[library]} | {last} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs/peers"), help="environments and finished cells")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    runs_dir = arguments.runs_dir.resolve()
    made: dict[str, Any] = {method: {library: {} for library in arguments.only} for method in arguments.methods}
    for seed in arguments.seeds:
        for method in arguments.methods:
            for library in arguments.only:
                made[method][library][seed] = run_cell(library, method, seed, runs_dir)
    settings = __doc__.split("\n\n")[2].replace("\n", " ").split(" Writes")[0]
    machine = f"{processor_names()[0]}, one thread, torch {torch.__version__}, float32."
    report = {"machine": machine, "settings": settings, "methods": made}
    write_report(arguments.output_dir, "peers_training", report, markdown(report))
    cells = [run for libraries in made.values() for runs in libraries.values() for run in runs.values()]
    end_by(sum("error" in run for run in cells))


if __name__ == "__main__":
    main()
