"""Every recipe over seeds: what a run of it measures and how long it takes, told in a line of the recipe itself.

    OMP_NUM_THREADS=1 python recipes/benchmarks/recipe_figures.py
    OMP_NUM_THREADS=1 python recipes/benchmarks/recipe_figures.py --folders multi_model --only digits_b_tuning
    OMP_NUM_THREADS=1 python recipes/benchmarks/recipe_figures.py --write   # renew `# Figures, ...` of each, too
    OMP_NUM_THREADS=1 python recipes/benchmarks/recipe_figures.py --only digits_lwf --again   # the code has changed

A run that finished is kept in --runs_dir and in the report, and is not trained again while its recipe stays the same.
The first seed of each recipe is run before the second of any. Recipes that start from the quickstart's models read
`quickstart/` of --runs_dir, which is made there where it is missing; those that start from another recipe's model read
that of the first seed. Minutes are processor time of one thread. Recipes that are rows of domain_adaptation.md or of
tasks.md take their figures from there.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import tasks
from cells import PERCENT, end_by, mean_and_deviation, train_all, write_report
from domain_adaptation import stored_pairs

from hf_transfer.runs.adapt import run_adaptation, run_pretraining
from hf_transfer.runs.arguments import parse_arguments, read_yaml

RECIPES = Path(__file__).resolve().parent.parent
FOLDERS = ("pretraining", "task_adaptation", "multi_model", "domain_adaptation", "tasks", "flowformer")
RUNS = {"adapt": run_adaptation, "pretrain": run_pretraining}
LARGE = re.compile(r"_paper$|^flowformer_(small|base)_")
"""Names of recipes of a size that is not run here."""
SHOWN = (
    "few_shot_accuracy",
    "zero_shot_accuracy",
    "entity_f1",
    "accuracy",
    "mean_iou",
    "map",
    "pck_10",
    "f1",
    "normalised_score",
    "mean_squared_error",
    "mean_absolute_error",
    "r_squared",
    "perplexity",
    "loss",
)
"""The metrics of a recipe's line, the first that it has; what FURTHER names is told with it, in place of `loss`."""
FURTHER = ("_linear_probe", "_knn", "image_to_text_recall_5")
WIDTH = 120
MARK = "# Figures, "
PAIRS = ("mnist_to_digits", "rotated_mnist", "digit_angles", "vowel_a_to_e")
OTHER_PAIRS = {"pada": "digits_partial", "iwan": "digits_partial", "osbp": "digits_open"}
OWN_SETTINGS = ("cdan_mcc", "cluster_contrast", "cluster_contrast_dbscan", "dsbn", "guarded", "label_shift")
"""Methods of recipes on these pairs that are no rows of domain_adaptation.md."""
WHERE = ("seed", "output_dir", "logging_steps", "disable_tqdm", "model", "architecture")
"""Settings that may differ where a recipe is a row of tasks.md, whose rows have one start."""
Cell = tuple[str, int]
"""Folder and name of a recipe, and its seed."""


def script_of(recipe: Path) -> str | None:
    """`adapt` or `pretrain`, as its first line says; None where the file is not run by itself."""
    found = re.match(r"# accelerate launch recipes/(\w+)\.py ", recipe.read_text())
    return found[1] if found and found[1] in RUNS else None


def recipes_of(folders: Iterable[str], only: Sequence[str]) -> dict[str, Path]:
    """Folder/name -> file, those that can be run here."""
    files = [file for folder in folders for file in sorted((RECIPES / folder).glob("*.yaml"))]
    chosen = [file for file in files if script_of(file) and not LARGE.search(file.stem)]
    found = {f"{file.parent.name}/{file.stem}": file for file in chosen if not only or file.stem in only}
    if unknown := set(only) - {file.stem for file in found.values()}:
        raise SystemExit(f"no recipes to run: {', '.join(sorted(unknown))}")
    return found


def folders_read(recipe: Path) -> set[str]:
    """Output folders of other recipes that this one starts from."""
    lines = [line for line in recipe.read_text().splitlines() if not line.startswith(("#", "output_dir:"))]
    return set(re.findall(r"outputs/(\w+)/", "\n".join(lines)))


def in_waves(recipes: Mapping[str, Path]) -> list[list[str]]:
    """Names of recipes, each after those whose models it reads."""
    left, waves = dict(recipes), []
    while left:
        waiting = {file.stem for file in left.values()}
        wave = [name for name, file in left.items() if not (folders_read(file) & waiting) - {file.stem}]
        waves.append(wave or list(left))
        left = {name: file for name, file in left.items() if name not in waves[-1]}
    return waves


def digest_of(recipe: Path) -> str:
    """Of what a recipe sets, its `base` included; another one where its figures no longer count."""
    settings = {name: value for name, value in read_yaml(recipe).items() if name not in ("seed", "output_dir")}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def row_of(recipe: str) -> tuple[str, str] | None:
    """Pair and method of the row of domain_adaptation.md that a recipe is; None where it is none."""
    for pair in PAIRS:
        folder, _, method = recipe.partition(f"/{pair}_")
        if folder == "domain_adaptation" and method and method not in OWN_SETTINGS:
            return OTHER_PAIRS.get(method, pair), "source_only" if method == "erm" else method
    return None


def compared(settings: Mapping[str, Any]) -> str:
    """What has to be equal for a recipe to be a row of tasks.md."""
    counts = {key: value for key, value in settings.items() if key not in WHERE and (key, value) != ("objectives", {})}
    return json.dumps(counts, sort_keys=True)


@cache
def rows_of_tasks() -> dict[str, tuple[str, str]]:
    """Recipe -> setting and method of the row of tasks.md that it is."""
    rows = {
        compared({**setting.arguments, **method}): (name, by)
        for name, setting in tasks.all_settings().items()
        for by, method in setting.methods.items()
    }
    found = {name: rows.get(compared(read_yaml(file))) for name, file in recipes_of(("tasks",), ()).items()}
    return {name: row for name, row in found.items() if row is not None}


def table_of(recipe: str) -> str:
    """The table of which it is a row, and the script that makes it."""
    if row_of(recipe) is not None:
        return "domain_adaptation"
    return "tasks" if recipe in rows_of_tasks() else "recipe_figures"


def runs_of_rows(recipes: Iterable[str]) -> dict[str, dict[int, dict[str, Any]]]:
    """Recipe -> seed -> seconds and metrics, of the recipes that are rows of another table."""
    results = RECIPES / "benchmarks" / "results"
    pairs, found = stored_pairs(results), {}
    settings = json.loads((results / "tasks.json").read_text())["settings"]
    for name in recipes:
        setting, method = rows_of_tasks().get(name, ("", ""))
        if runs := settings.get(setting, {}).get(method, {}):
            found[name] = {int(seed): run for seed, run in runs.items()}
        if (row := row_of(name)) is not None:
            runs = pairs[row[0]][row[1]]["runs"]
            found[name] = {
                int(seed): {"seconds": run["seconds"], "metrics": {k: v for k, v in run.items() if k in SHOWN}}
                for seed, run in runs.items()
            }
    return found


def known_runs(recipes: Mapping[str, Path], report: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Recipe -> seed -> what the tables in the folder of results know of runs of the same settings."""
    rows = json.loads(report.read_text()) if report.exists() else {}
    current = {name for name, file in recipes.items() if rows.get(name, {}).get("digest") == digest_of(file)}
    return {
        name: {int(seed): run for seed, run in rows[name]["runs"].items()} if name in current else {}
        for name in recipes
    } | runs_of_rows(recipes)


def kept_run(cell: Cell, runs_dir: Path) -> Path:
    """The file of what a finished run measured."""
    name, seed = cell
    return runs_dir / "figures" / f"{name.replace('/', '-')}-{seed}-{digest_of(RECIPES / f'{name}.yaml')}.json"


def train(cell: Cell, runs_dir: Path, report_only: bool = False) -> dict[str, Any] | None:
    """Metrics and processor seconds of one run; None where it failed, which is told, or was not to be trained."""
    name, seed = cell
    file, kept = RECIPES / f"{name}.yaml", kept_run(cell, runs_dir)
    if kept.exists() or report_only:
        return json.loads(kept.read_text()) if kept.exists() else None
    os.chdir(runs_dir)
    folder = f"outputs/{file.stem}" if seed == 0 else f"outputs-{seed}/{file.stem}"
    words = [str(file), "--seed", str(seed), "--output_dir", folder, "--overwrite", "--disable_tqdm", "--use_cpu"]
    started = time.process_time()
    try:
        metrics = RUNS[script_of(file)](parse_arguments(words))
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        print(f"{name}, seed {seed}: {error}", flush=True)
        return None
    seconds = time.process_time() - started
    numbers = {key: value for key, value in metrics.items() if isinstance(value, int | float)}
    made = {"seconds": round(seconds, 1), "metrics": numbers}
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(made))
    print(f"{name}, seed {seed}: {seconds:.0f} s, {numbers}", flush=True)
    return made


def shown_metrics(metrics: Mapping[str, float]) -> list[str]:
    """Those that a recipe's line tells."""
    probes = [name for name in metrics if name.endswith(FURTHER)]
    first = [name for name in SHOWN if name in metrics][:1]
    return [*(first if first not in ([], ["loss"]) else []), *probes] or first


def told(name: str, values: Sequence[float]) -> str:
    """A metric with its spread: accuracies in percent."""
    said = name.replace("_", " ")
    if name.endswith(PERCENT) and max(map(abs, values)) <= 1:
        return f"{said} {mean_and_deviation([100 * value for value in values])} %"
    return f"{said} {mean_and_deviation(values, 3)}"


def figures_of(runs: Mapping[int, Mapping[str, Any]]) -> str:
    """Metrics over the seeds, in words."""
    metrics = [run["metrics"] for run in runs.values()]
    names = [one for one in shown_metrics(metrics[0]) if all(one in measured for measured in metrics)]
    said = [told(one, [measured[one] for measured in metrics]) for one in names]
    return "; ".join(said) or "nothing on held-out rows"


def minutes_of(runs: Mapping[int, Mapping[str, Any]]) -> str:
    """The median over the seeds."""
    return f"{statistics.median(run['seconds'] for run in runs.values()) / 60:.1f}"


def line_of(name: str, runs: Mapping[int, Mapping[str, Any]]) -> str:
    """What stands in the recipe: metrics over the seeds, and the minutes of one."""
    seeds = f"seed {next(iter(runs))}" if len(runs) == 1 else f"seeds {', '.join(map(str, runs))}"
    cost = f"{minutes_of(runs)} min of a CPU thread each (recipes/benchmarks/{table_of(name)}.py)."
    return f"{MARK}{seeds}: {figures_of(runs)}; {cost}"


def wrapped(line: str) -> list[str]:
    """Comment lines of at most `WIDTH` characters."""
    lines, rest = [], line
    while len(rest) > WIDTH:
        end = rest.rindex(" ", 0, WIDTH + 1)
        lines.append(rest[:end])
        rest = "#   " + rest[end + 1 :]
    return [*lines, rest]


def write_line(file: Path, line: str) -> None:
    """Renew the line of a recipe, which is the last of its header."""
    lines = file.read_text().splitlines()
    end = next(place for place, one in enumerate(lines) if not one.startswith("#"))
    header, dropped = [], False
    for one in lines[:end]:
        dropped = one.startswith(MARK) or (dropped and one.startswith("#   "))
        header += [] if dropped else [one]
    file.write_text("\n".join([*header, *wrapped(line), *lines[end:]]) + "\n")


def make_quickstart(runs_dir: Path) -> None:
    """The models and the ranking that recipes of the digits start from."""
    if (runs_dir / "quickstart" / "ranking").exists():
        return
    command = [sys.executable, str(RECIPES / "quickstart.py"), "--seed", "0"]
    subprocess.run(command, cwd=runs_dir, check=True)


def report(runs: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    """A table: a recipe a row."""
    lines = [
        "# Recipes, as they are",
        "",
        "Mean ± standard deviation over the seeds; processor time of one thread, median. Methods are compared by the "
        "other tables of this folder, under settings of their own.",
        "",
        "| recipe | seeds | measured | minutes |",
        "|---|--:|---|--:|",
    ]
    for name, by_seed in runs.items():
        link = f"[{name}](../../{name}.yaml)"
        lines.append(f"| {link} | {len(by_seed)} | {figures_of(by_seed)} | {minutes_of(by_seed)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", nargs="+", default=FOLDERS, choices=FOLDERS, help="of recipes")
    parser.add_argument("--only", nargs="+", default=(), help="names of recipes")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs/recipes"), help="trainings and their figures")
    parser.add_argument("--output_dir", type=Path, default=RECIPES / "benchmarks" / "results", help="of the report")
    parser.add_argument("--report_only", action="store_true", help="train nothing: report what --runs_dir holds")
    parser.add_argument("--write", action="store_true", help="renew the line of each recipe that was run")
    parser.add_argument("--again", action="store_true", help="train anew what is finished: the code has changed")
    arguments = parser.parse_args()
    runs_dir = arguments.runs_dir.resolve()
    runs_dir.mkdir(parents=True, exist_ok=True)
    recipes = recipes_of(arguments.folders, arguments.only)
    if not arguments.report_only and any("quickstart/" in file.read_text() for file in recipes.values()):
        make_quickstart(runs_dir)
    runs = known_runs(recipes, arguments.output_dir / "recipe_figures.json")
    if arguments.again:
        runs = {name: {} for name in recipes}
        for cell in itertools.product(recipes, arguments.seeds):
            kept_run(cell, runs_dir).unlink(missing_ok=True)
    for seed in arguments.seeds:
        for wave in in_waves(recipes):
            cells = [(name, seed) for name in wave if seed not in runs[name]]
            known = {cell: train(cell, runs_dir, report_only=True) for cell in cells}
            missing = [] if arguments.report_only else [cell for cell, made in known.items() if made is None]
            if missing:
                known |= train_all(train, missing, arguments.workers, runs_dir)
            for (name, _), made in known.items():
                runs[name] |= {seed: made} if made else {}
    done = {name: by_seed for name, by_seed in runs.items() if by_seed}
    if arguments.write:
        for name, by_seed in done.items():
            write_line(recipes[name], line_of(name, by_seed))
    every = known_runs(recipes_of(FOLDERS, ()), arguments.output_dir / "recipe_figures.json") | done
    every = {name: dict(sorted(by_seed.items())) for name, by_seed in sorted(every.items()) if by_seed}
    own = [name for name in every if table_of(name) == "recipe_figures"]
    rows = {name: {"digest": digest_of(RECIPES / f"{name}.yaml"), "runs": every[name]} for name in own}
    write_report(arguments.output_dir, "recipe_figures", rows, report(every))
    if arguments.report_only:
        return
    end_by(sum(seed not in by_seed for by_seed in runs.values() for seed in arguments.seeds))


if __name__ == "__main__":
    main()
