"""What is gained by estimating class shares where they differ between the domains, and what it costs to ignore it.

    python recipes/benchmarks/label_shift.py                                   # both variants, three seeds
    python recipes/benchmarks/label_shift.py --variants low --methods dann --seeds 0 --steps 40
    python recipes/benchmarks/label_shift.py --finished                        # report what there is

MNIST-5k (labelled) to optical digits (unlabelled), of which the digits 0 to 4 are five times as frequent as the others
(`low`), or the other way round (`high`); LeNet. Source only is trained first; it estimates the class shares of the
target and is what every other training is compared with by the guard's validator, with `label_shift: ignore` and
`correct`. Every adapted model is kept (`keep_adapted`), so that the guard's decision can be counted as right or wrong.
A cell that is finished in --runs_dir is not run again. Writes `label_shift.json` and `.md` into the output folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import COMMON, data_folder, end_by, mean_and_deviation, train_all, write_report
from machine import processor_names

from hf_transfer.data.bundled import load
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import LABEL_SHIFTS, parse_arguments

RESULTS = "label_shift"
VARIANTS = {"low": 5.0, "high": 0.2}
"""Name -> how many times as frequent as the other digits 0 to 4 are in the target."""
SOURCE_ONLY = "source_only"
METHODS: dict[str, dict[str, Any]] = {SOURCE_ONLY: {}, "dann": {"dann": {}}, "mcc": {"mcc": {}}, "cdan": {"cdan": {}}}
SETTINGS = {
    **COMMON,
    "architecture": {"model_type": "lenet"},
    "task": "image-classification",
    "max_steps": 300,
    "per_device_train_batch_size": 64,
    "per_device_eval_batch_size": 500,
    "learning_rate": 1e-3,
    "source_holdout": 0.1,
    "test_rows": 300,
    "logging_steps": 100,
    "diagnostics": False,
    "use_cpu": True,
}
WORSE = 2.0
"""Points below source only from which on a validator that prefers the model is counted."""

FAILED = "failed"
"""A file in the folder of a training that failed."""

Cell = tuple[str, str, str, int]
"""(variant, method, label_shift, seed)."""


DATA = {
    "mnist5k": partial(load, "mnist5k"),
    **{
        f"digits_{name}": partial(load, "optical_digits", options={"low_over_high": times})
        for name, times in VARIANTS.items()
    },
}


def run_folder(cell: Cell, runs_dir: Path) -> Path:
    return runs_dir / "-".join(map(str, cell))


def is_reference(cell: Cell) -> bool:
    """Whether a cell is the source-only training that the others are compared with."""
    return cell[1] == SOURCE_ONLY and cell[2] == LABEL_SHIFTS[0]


def settings_of(cell: Cell, runs_dir: Path, steps: int | None) -> dict[str, Any]:
    """The arguments of a cell's run."""
    variant, method, mode, seed = cell
    given = {**SETTINGS, "seed": seed, "output_dir": str(run_folder(cell, runs_dir)), "overwrite": True}
    given["dataset"] = data_folder(DATA, "mnist5k", runs_dir)
    given["target_dataset"] = data_folder(DATA, f"digits_{variant}", runs_dir)
    given["max_steps"] = steps or SETTINGS["max_steps"]
    if is_reference(cell):
        return given
    reference = run_folder((variant, SOURCE_ONLY, LABEL_SHIFTS[0], seed), runs_dir) / "model"
    compared = {"source_only": str(reference), "keep_adapted": True, "label_shift": mode}
    return {**given, "objectives": METHODS[method], **compared}


def wait_for_reference(cell: Cell, runs_dir: Path) -> None:
    """Until another worker has trained the source-only model of a cell, which was begun earlier.

    Raises:
        RuntimeError: that training failed.
    """
    folder = run_folder((cell[0], SOURCE_ONLY, LABEL_SHIFTS[0], cell[3]), runs_dir)
    while not is_reference(cell) and not (folder / "model" / "results.json").exists():
        if (folder / FAILED).exists():
            raise RuntimeError(f"{folder.name} failed, with which this training is compared.")
        time.sleep(1)


def train(cell: Cell, runs_dir: Path, steps: int | None) -> dict[str, Any]:
    """The results of one cell; of the earlier run where it is finished. A run that fails says why under `error`."""
    folder = run_folder(cell, runs_dir)
    results = folder / "model" / "results.json"
    if not results.exists():
        started = time.process_time()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(json.dumps(settings_of(cell, runs_dir, steps), indent=2))
        try:
            wait_for_reference(cell, runs_dir)
            run_adaptation(parse_arguments([str(folder / "settings.json")]))
        except Exception as error:  # one cell's failure should not lose the others
            (folder / FAILED).touch()
            print(f"{folder.name}: {type(error).__name__}: {error}", flush=True)
            return {"error": f"{type(error).__name__}: {error}"}
        (folder / "seconds.json").write_text(json.dumps(round(time.process_time() - started, 1)))
    found = json.loads(results.read_text())
    found["processor_seconds"] = json.loads((folder / "seconds.json").read_text())
    print(f"{folder.name}: {100 * found['accuracy']:.1f} in {found['processor_seconds']} s", flush=True)
    return found


def cells_of(arguments: argparse.Namespace) -> list[Cell]:
    """Seed by seed, source only first, which the others read."""
    found: list[Cell] = []
    for seed in arguments.seeds:
        cells = [(variant, SOURCE_ONLY, LABEL_SHIFTS[0], seed) for variant in arguments.variants]
        for method in arguments.methods:
            cells += [(variant, method, mode, seed) for variant in arguments.variants for mode in LABEL_SHIFTS]
        found += dict.fromkeys(cells)
    if arguments.finished:
        return [one for one in found if (run_folder(one, arguments.runs_dir) / "model" / "results.json").exists()]
    return found


def true_shares(variant: str) -> np.ndarray:
    """Class shares of a variant's target, [10]."""
    weights = np.repeat([VARIANTS[variant], 1.0], 5)
    return weights / weights.sum()


def figures_of(cell: Cell, found: dict[Cell, dict[str, Any]]) -> dict[str, Any]:
    """What the report keeps of a run."""
    run = found[cell]
    kept: dict[str, Any] = {"accuracy": 100 * run["accuracy"], "processor_seconds": run["processor_seconds"]}
    if "guard" in run:
        reference = found[cell[0], SOURCE_ONLY, LABEL_SHIFTS[0], cell[3]]
        kept["gain"] = kept["accuracy"] - 100 * reference["accuracy"]
        kept["guard_keeps"] = run["guard"]["adapted"] >= run["guard"]["source_only"]
        others = reference["validators"]
        kept["preferred_by"] = sorted(name for name, value in run["validators"].items() if value > others[name])
        # that of the run may ask for other shares than the reference's own run did
        chosen = run["guard"]["validator"]
        kept["preferred_by"] = [name for name in kept["preferred_by"] if name != chosen]
        kept["preferred_by"] += [chosen] if run["guard"]["adapted"] > run["guard"]["source_only"] else []
    if "label_shift" in run:
        columns = np.array(list(run["label_shift"]["classes"].values()))
        truth = true_shares(cell[0])
        kept["estimated"] = columns[:, 1].round(4).tolist()
        kept["standard_errors"] = columns[:, 2].round(4).tolist()
        kept["distance_of_estimate"] = float(np.abs(columns[:, 1] - truth).sum() / 2)
        kept["distance_of_source"] = float(np.abs(columns[:, 0] - truth).sum() / 2)
    return kept


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train what is not trained yet."""
    for name in ("mnist5k", *(f"digits_{variant}" for variant in arguments.variants)):
        data_folder(DATA, name, arguments.runs_dir)
    cells = cells_of(arguments)
    for cell in cells:
        (run_folder(cell, arguments.runs_dir) / FAILED).unlink(missing_ok=True)
    found = train_all(train, cells, arguments.workers, arguments.runs_dir, arguments.steps)
    known = {cell: run for cell, run in found.items() if "error" not in run}
    runs = [
        {"variant": cell[0], "method": cell[1], "label_shift": cell[2], "seed": cell[3], **figures_of(cell, known)}
        for cell in known
        if (cell[0], SOURCE_ONLY, LABEL_SHIFTS[0], cell[3]) in known
    ]
    machine = f"{processor_names()[0]}, one thread a training, torch {torch.__version__}, float32."
    steps = arguments.steps or SETTINGS["max_steps"]
    return {"machine": machine, "steps": steps, "runs": runs, "failed": len(found) - len(known)}


def accuracy_table(runs: list[dict[str, Any]]) -> list[str]:
    """Rows of Markdown: a row for each method and mode, a column for each variant."""
    variants = [name for name in VARIANTS if any(run["variant"] == name for run in runs)]
    lines = [f"| method | label_shift | {' | '.join(variants)} |", "|---|---|" + "--:|" * len(variants)]
    for method in METHODS:
        for mode in LABEL_SHIFTS:
            cells = []
            for variant in variants:
                own = [r for r in runs if (r["variant"], r["method"], r["label_shift"]) == (variant, method, mode)]
                gains = [run["gain"] for run in own if "gain" in run]
                gain = f" ({statistics.mean(gains):+.1f})" if gains else ""
                cells.append(f"{mean_and_deviation([run['accuracy'] for run in own])}{gain}" if own else "")
            if any(cells):
                lines.append(f"| {method} | {mode} | {' | '.join(cells)} |")
    return lines


def guard_table(runs: list[dict[str, Any]]) -> list[str]:
    """Rows of Markdown: how often the guard was right in each mode."""
    lines = ["| label_shift | runs | kept rightly | kept wrongly | dropped rightly | dropped wrongly |"]
    lines += ["|---|" + "--:|" * 5]
    for mode in LABEL_SHIFTS:
        compared = [run for run in runs if run["label_shift"] == mode and "guard_keeps" in run]
        kept = [run for run in compared if run["guard_keeps"]]
        dropped = [run for run in compared if not run["guard_keeps"]]
        counts = [sum(run["gain"] >= 0 for run in kept), sum(run["gain"] < 0 for run in kept)]
        counts += [sum(run["gain"] < 0 for run in dropped), sum(run["gain"] >= 0 for run in dropped)]
        lines.append(f"| {mode} | {len(compared)} | {' | '.join(map(str, counts))} |")
    return lines


def validator_table(runs: list[dict[str, Any]]) -> list[str]:
    """Rows of Markdown: how often each validator prefers a model that is clearly worse than source only."""
    compared = {mode: [r for r in runs if r["label_shift"] == mode and "gain" in r] for mode in LABEL_SHIFTS}
    worse = {mode: [run for run in rows if run["gain"] <= -WORSE] for mode, rows in compared.items()}
    better = {mode: [run for run in rows if run["gain"] >= WORSE] for mode, rows in compared.items()}
    titles = [
        f"{mode}: {what}" for mode in LABEL_SHIFTS for what in (f"-{WORSE:g} preferred", f"+{WORSE:g} preferred")
    ]
    lines = [f"| validator | {' | '.join(titles)} |", "|---|" + "--:|" * len(titles)]
    for name in sorted({name for rows in compared.values() for run in rows for name in run["preferred_by"]}):
        cells = [
            f"{sum(name in run['preferred_by'] for run in rows[mode])} of {len(rows[mode])}"
            for mode in LABEL_SHIFTS
            for rows in (worse, better)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def shares_table(runs: list[dict[str, Any]]) -> list[str]:
    """Rows of Markdown: true shares of the target, and those that were estimated, of every seed."""
    lines = [f"| variant | shares, % | {' | '.join(map(str, range(10)))} | distance from the truth |"]
    lines += ["|---|---|" + "--:|" * 11]
    told = {(run["variant"], run["seed"]): run for run in runs if "estimated" in run}
    for variant in VARIANTS:
        own = {seed: run for (name, seed), run in sorted(told.items()) if name == variant}
        if not own:
            continue
        lines.append(f"| {variant} | true | {' | '.join(f'{100 * share:.1f}' for share in true_shares(variant))} | |")
        for seed, run in own.items():
            pairs = zip(run["estimated"], run["standard_errors"])
            cells = " | ".join(f"{100 * share:.1f} ± {100 * error:.1f}" for share, error in pairs)
            far = f"{run['distance_of_estimate']:.2f} (the source's: {run['distance_of_source']:.2f})"
            lines.append(f"| {variant} | estimated, seed {seed} | {cells} | {far} |")
    return lines


def markdown(made: dict[str, Any]) -> str:
    """The page."""
    runs = made["runs"]
    lines = [
        "# Class shares that differ between the domains",
        "",
        f"{made['machine']} {made['steps']} steps of 32 + 32.",
    ]
    lines += ["MNIST-5k to optical digits; in the target 0 to 4 are five times as frequent as 5 to 9 (`low`), or the "]
    lines += [
        "other way round (`high`). Accuracy on 300 held-out target digits in %, mean ± standard deviation over the"
    ]
    lines += ["seeds; in brackets points over source only, which ignores the shift, on the same seeds.", ""]
    lines += [*accuracy_table(runs), "", "## Shares", ""]
    lines += [
        "Estimated by source only without target labels; ± is a standard error by bootstrap over rows, which does "
    ]
    lines += ["not know that digits of the two sets look different.", "", *shares_table(runs), "", "## The guard", ""]
    lines += [
        "A run is kept where the validator (information maximisation, with `correct` against the estimated shares)"
    ]
    lines += ["does not prefer source only; rightly where its accuracy is not below that of source only.", ""]
    lines += [*guard_table(runs), "", "## Validators", ""]
    lines += [f"Runs at least {WORSE:g} points below and above source only that each validator prefers to it.", ""]
    lines += validator_table(runs)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def arguments_of(words: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time, a thread each")
    parser.add_argument("--finished", action="store_true", help="train nothing: report the cells that are there")
    parser.add_argument("--steps", type=int, help=f"in place of {SETTINGS['max_steps']}: a quick trial")
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs/label_shift"), help="where trainings go")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args(None if words is None else list(words))


def main() -> None:
    arguments = arguments_of()
    made = report(arguments)
    write_report(arguments.output_dir, RESULTS, made, markdown(made))
    end_by(0 if arguments.finished else made["failed"])


if __name__ == "__main__":
    main()
