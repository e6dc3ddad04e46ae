"""Every domain-adaptation method on real pairs of domains: target accuracy, and what validators see of it.

    python recipes/benchmarks/domain_adaptation.py                                        # everything, three seeds
    python recipes/benchmarks/domain_adaptation.py --pairs mnist_to_digits --methods dann mcc --seeds 0
    python recipes/benchmarks/domain_adaptation.py --workers 2                            # two trainings at a time
    python recipes/benchmarks/domain_adaptation.py --tune                                 # choose settings first
    python recipes/benchmarks/domain_adaptation.py --finished                             # report what there is

A cell is one training of a method on a pair with a seed; one that is finished in --runs_dir is not run again, so a run
that was interrupted goes on. Settings come from PAIRS and METHODS of domain_adaptation_pairs.py. With --tune every
candidate of a method is trained on the first seed, and `TUNED_BY`, which reads no target label, chooses the one that
all seeds use. Sidecar six pairs of domains with the same classes there are a partial, an open-set and a regression
pair, and one without a target.
Writes `domain_adaptation.json`, `.md`, `.png` and `domain_adaptation_validators.json` into the output folder; cells
that are there already are kept.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import as_columns, as_runs, data_folder, end_by, plot_accuracies, train_all, write_json, write_report
from domain_adaptation_pairs import DATA, METHODS, PAIRS, SETTINGS, SOURCE_ONLY, candidates_of, fits, measure_of
from domain_adaptation_tables import markdown, measured
from emoji_pairs import PAIRS as EMOJI_PAIRS
from guard_tables import guard_lines
from machine import processor_names
from ranking_models import MAKERS, candidate
from scipy.stats import kendalltau, pearsonr, spearmanr

from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.validators import VALIDATORS

RESULTS = "domain_adaptation"
TITLES = {
    RESULTS: "Domain adaptation: every method on every pair",
    "emoji": "Domain adaptation between vendors of emoji",
}
TUNED_BY = "information_maximization"
FEWEST_RUNS = 10  # over which a correlation is worth telling


Cell = tuple[str, str, int, int]
"""(pair, method, which candidate, seed)."""


def write_data(pairs: Iterable[str], runs_dir: Path) -> None:
    """The rows that the pairs read and the models that they start from, as folders."""
    used = {value for pair in pairs for value in PAIRS[pair].values() if isinstance(value, str)}
    for name in sorted(used & set(DATA)):
        data_folder(DATA, name, runs_dir)
    for name in sorted(used & set(MAKERS)):
        candidate(name, runs_dir)


def settings_of(cell: Cell, runs_dir: Path, steps: int | None) -> dict[str, Any]:
    """The arguments of a cell's run."""
    pair, method, place, seed = cell
    given = {**SETTINGS, **PAIRS[pair], **candidates_of(pair, method)[place], "seed": seed}
    if given.get("model") in MAKERS:
        given["model"] = str(candidate(given["model"], runs_dir).resolve())
    for key in ("dataset", "target_dataset", "test_dataset"):
        if key in given:
            given[key] = data_folder(DATA, given[key], runs_dir)
    if steps is not None:
        given["max_steps"] = steps
    if "target_dataset" not in given:
        del given["source_holdout"]  # several sources and no target have no validator to hold rows out for
    return {**given, "output_dir": str(run_folder(cell, runs_dir)), "overwrite": True}


def run_folder(cell: Cell, runs_dir: Path) -> Path:
    return runs_dir / "-".join(map(str, cell))


def train(cell: Cell, runs_dir: Path, steps: int | None) -> dict[str, Any]:
    """The results of one cell; of the earlier run where it is finished. A run that fails says why under `error`."""
    folder = run_folder(cell, runs_dir)
    results = folder / "model" / "results.json"
    if not results.exists():
        started = time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(json.dumps(settings_of(cell, runs_dir, steps), indent=2))
        try:
            run_adaptation(parse_arguments([str(folder / "settings.json")]))
        except Exception as error:  # one cell's failure should not lose the others
            print(f"{folder.name}: {type(error).__name__}: {error}", flush=True)
            return {"error": f"{type(error).__name__}: {error}"}
        (folder / "seconds.json").write_text(json.dumps(round(time.perf_counter() - started, 1)))
    found = json.loads(results.read_text())
    seconds = folder / "seconds.json"
    found["seconds"] = json.loads(seconds.read_text()) if seconds.exists() else None
    found["processor"] = processor_names()[0]
    print(f"{folder.name}: {measure_of(cell[0]).of(found):.1f} in {found['seconds']} s", flush=True)
    return found


def to_run(cells: Iterable[Cell], arguments: argparse.Namespace) -> list[Cell]:
    """All of them; with --finished those that need no training."""
    return [
        cell
        for cell in cells
        if not arguments.finished or (run_folder(cell, arguments.runs_dir) / "model" / "results.json").exists()
    ]


def choose_candidates(arguments: argparse.Namespace) -> dict[tuple[str, str], int]:
    """Which candidate of each method a pair uses: the one whose run on the first seed `TUNED_BY` likes best."""
    pairs = [(pair, method) for pair in arguments.pairs for method in arguments.methods if fits(pair, method)]
    if not arguments.tune:
        return dict.fromkeys(pairs, 0)
    seed = arguments.seeds[0]
    cells = to_run(((*pair, place, seed) for pair in pairs for place in range(len(candidates_of(*pair)))), arguments)
    found = train_all(train, cells, arguments.workers, arguments.runs_dir, arguments.steps)

    def score(cell: Cell) -> float:
        return found[cell].get("validators", {}).get(TUNED_BY, float("-inf"))

    return {pair: max((c for c in cells if c[:2] == pair), key=score, default=(*pair, 0))[2] for pair in pairs}


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train what is not trained yet; rows of an earlier report stay, and so do other seeds of the same settings."""
    write_data(arguments.pairs, arguments.runs_dir)
    chosen = choose_candidates(arguments)
    cells = to_run(((*pair, place, seed) for seed in arguments.seeds for pair, place in chosen.items()), arguments)
    found = train_all(train, cells, arguments.workers, arguments.runs_dir, arguments.steps)
    pairs = stored_pairs(arguments.output_dir, arguments.results)
    for (pair, method), place in chosen.items():
        runs = {cell[3]: found[cell] for cell in cells if cell[:3] == (pair, method, place)}
        if not runs:
            continue
        row = {"settings": candidates_of(pair, method)[place], "tuned": arguments.tune, "steps": arguments.steps}
        before = pairs.setdefault(pair, {}).get(method, {})
        kept = before.get("runs", {}) if row == {key: before.get(key) for key in row} else {}
        row["runs"] = dict(sorted({**kept, **{str(seed): run for seed, run in runs.items()}}.items()))
        pairs[pair][method] = row
    every = [run for table in pairs.values() for row in table.values() for run in row["runs"].values()]
    processors = " or ".join(sorted({run["processor"] for run in every if "processor" in run}))
    machine = f"{processors}, one thread a training, torch {torch.__version__}, float32."
    ordered = {
        pair: {method: pairs[pair][method] for method in METHODS if method in pairs[pair]}
        for pair in PAIRS
        if pair in pairs
    }
    validators = {pair: validator_table(pair, finished_runs(pair, ordered, arguments.runs_dir)) for pair in ordered}
    return {"machine": machine, "tuned_by": TUNED_BY, "pairs": ordered, "validators": validators}


def stored_pairs(folder: Path, name: str = RESULTS) -> dict[str, Any]:
    """The rows of an earlier report of this name in the folder, with their runs by seed; none where there is none."""
    if not (folder / f"{name}.json").exists():
        return {}
    stored = json.loads((folder / f"{name}.json").read_text())
    pairs, processor = stored["pairs"], stored["machine"].split(",")[0]
    scores = json.loads((folder / f"{name}_validators.json").read_text())
    for pair, table in pairs.items():
        for method, row in table.items():
            runs = as_runs(row["runs"])
            row["runs"] = {seed: {"processor": processor, **run} for seed, run in runs.items()}
            for seed, validators in as_runs(scores[pair].get(method, {"seed": []})).items():
                row["runs"][seed]["validators"] = validators
    return pairs


def store(made: dict[str, Any], folder: Path, name: str) -> None:
    """Write the report; what the validators say of each run has a file of its own."""
    pairs: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    for pair, table in made["pairs"].items():
        pairs[pair], scores[pair] = {}, {}
        for method, row in table.items():
            figures = {seed: {k: v for k, v in run.items() if k != "validators"} for seed, run in row["runs"].items()}
            pairs[pair][method] = {**row, "runs": as_columns(figures)}
            told = {seed: run["validators"] for seed, run in row["runs"].items() if "validators" in run}
            if told:
                scores[pair][method] = as_columns(told)
    guarded = guard_lines(made["pairs"], TUNED_BY)
    text = markdown(made, TITLES[name]) + "\n".join(["", "## The guard", "", *guarded, ""] if guarded else [])
    write_report(folder, name, {**made, "pairs": pairs}, text)
    write_json(folder / f"{name}_validators.json", scores)


def finished_runs(pair: str, pairs: dict[str, Any], runs_dir: Path) -> list[dict[str, Any]]:
    """Every finished run of a pair: those of the report, and where they are still there those of other candidates."""
    folders = [json.loads(path.read_text()) for path in sorted(runs_dir.glob(f"{pair}-*/model/results.json"))]
    reported = [run for row in pairs[pair].values() for run in row["runs"].values()]
    measured = measure_of(pair).key
    found = folders if len(folders) >= len(reported) else reported  # after a method is run anew few folders are there
    return [run for run in found if "validators" in run and measured in run]


def validator_table(pair: str, runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How each validator goes with the true target accuracy over the runs, and the accuracy of the run it prefers."""
    if len(runs) < FEWEST_RUNS:
        return {}
    table, measure = {}, measure_of(pair)
    for name in VALIDATORS:
        known = [run for run in runs if np.isfinite(run["validators"].get(name, np.nan))]
        truth = measure.sign * np.array([measure.of(run) for run in known])
        scores = np.array([run["validators"][name] for run in known])
        if len(known) < FEWEST_RUNS or np.ptp(scores) == 0 or np.ptp(truth) == 0:
            continue
        table[name] = {
            "runs": len(known),
            "pearson": float(pearsonr(scores, truth).statistic),
            "spearman": float(spearmanr(scores, truth).statistic),
            "kendall": float(kendalltau(scores, truth).statistic),
            "choice": measure.sign * float(truth[scores.argmax()]),
            "best": measure.sign * float(truth.max()),
        }
    return table


def command(results: str, names: Sequence[str], description: str | None) -> None:
    """The command line of a benchmark of domain adaptation.

    Args:
        results: name of what it writes.
        names: of its pairs.
        description: of its help.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", choices=names, default=names)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time, a thread each")
    parser.add_argument("--tune", action="store_true", help="let a validator choose among a method's settings")
    parser.add_argument("--finished", action="store_true", help="train nothing: report the cells that are there")
    parser.add_argument("--steps", type=int, help="in place of the pairs' own number: a quick trial")
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs") / results, help="where trainings go")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    parser.set_defaults(results=results)
    arguments = parser.parse_args()
    made = report(arguments)
    store(made, arguments.output_dir, results)
    known = {
        pair: {method: list(measured(pair, row).values()) for method, row in table.items() if measured(pair, row)}
        for pair, table in made["pairs"].items()
    }
    labels = {pair: measure_of(pair).title for pair in known}
    plot_accuracies(known, SOURCE_ONLY, arguments.output_dir / f"{results}.png", labels)
    tables = [made["pairs"].get(pair, {}) for pair in arguments.pairs]
    rows = [table[method] for table in tables for method in arguments.methods if method in table]
    failed = sum("error" in run for row in rows for run in row["runs"].values())
    end_by(0 if arguments.finished else failed)


def main() -> None:
    command(RESULTS, [pair for pair in PAIRS if pair not in EMOJI_PAIRS], __doc__)


if __name__ == "__main__":
    main()
