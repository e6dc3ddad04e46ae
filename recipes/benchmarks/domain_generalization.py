"""Two columns of DomainBed, ColoredMNIST and RotatedMNIST, under its three rules of choosing.

    python recipes/benchmarks/domain_generalization.py                                  # everything, three seeds
    python recipes/benchmarks/domain_generalization.py --columns RotatedMNIST --methods erm --seeds 0
    python recipes/benchmarks/domain_generalization.py --finished                       # report what there is

The 5,000 digits of MNIST-5k, each in one environment (DomainBed has 70,000), and a LeNet. Every environment is the
test once. A method has two candidates, told beside the table; one is chosen by a fifth of the rows of the environments
that were trained on (training domain), by training environments that were left out one by one beside the test (leave
one out), or by a fifth of the rows of the test environment (oracle). Accuracy is of the other rows of the test
environment. A cell that is finished in --runs_dir is not run again. Writes `domain_generalization.json` and `.md`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from cells import COMMON, end_by, mean_and_deviation, train_all, write_report
from datasets import Dataset, concatenate_datasets
from machine import processor_names

from hf_transfer.data.bundled import coloured_mnist, rotated_mnist
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation

RESULTS = "domain_generalization"
RULES = ("training domain", "leave one out", "oracle")
ENVIRONMENTS = {"ColoredMNIST": ("+90%", "+80%", "-90%"), "RotatedMNIST": ("0", "15", "30", "45", "60", "75")}
CHOICE = 5
"""Every fifth row of an environment is to choose by."""
LATE = {"starts_at": 0.3}
CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "erm": [{"learning_rate": 1e-3}, {"learning_rate": 3e-3}],
    "irm": [{"objectives": {"irm": {"weight": weight, **LATE}}} for weight in (10.0, 300.0)],
    "vrex": [{"objectives": {"vrex": {"weight": weight, **LATE}}} for weight in (10.0, 300.0)],
    "groupdro": [{"objectives": {"groupdro": {"step_size": size}}} for size in (0.01, 0.1)],
    "mldg": [{"objectives": {"mldg": {"beta": beta}}} for beta in (0.3, 1.0)],
    "domain_coral": [{"objectives": {"domain_coral": {"weight": weight}}} for weight in (0.1, 1.0)],
    "mix_style": [{"converters": {"mix_style": {"alpha": alpha}}} for alpha in (0.1, 0.3)],
}
PUBLISHED = {
    "ColoredMNIST": {
        "erm": (51.5, 36.7, 57.8),
        "irm": (52.0, 40.3, 67.7),
        "vrex": (51.8, 36.9, 67.0),
        "groupdro": (52.1, 36.8, 61.1),
        "mldg": (51.5, 36.7, 58.2),
        "domain_coral": (51.5, 39.7, 58.6),
    },
    "RotatedMNIST": {
        "erm": (98.0, 97.7, 97.8),
        "irm": (97.7, 97.0, 97.5),
        "vrex": (97.9, 93.6, 97.9),
        "groupdro": (98.0, 97.6, 97.9),
        "mldg": (97.9, 97.6, 97.8),
        "domain_coral": (98.0, 97.8, 98.0),
    },
}
"""Averages over the test environments in the order of RULES, https://huggingface.co/papers/2007.01434."""
SETTINGS: dict[str, Any] = {
    **COMMON,
    "task": "image-classification",
    "max_steps": 300,
    "learning_rate": 3e-3,
    "per_device_eval_batch_size": 500,
    "logging_steps": 100,
    "diagnostics": False,
    "use_cpu": True,
}
COLUMNS = {
    "ColoredMNIST": {
        "architecture": {"model_type": "lenet", "image_size": 16, "num_channels": 3, "channels": [10, 20]},
        "per_device_train_batch_size": 256,
        "lr_scheduler_type": "constant",
    },
    "RotatedMNIST": {"architecture": {"model_type": "lenet"}, "per_device_train_batch_size": 100},
}
"""What the trainings of a column have of their own."""

Cell = tuple[str, str, int, tuple[int, ...], int]
"""(column, method, candidate, environments that are left out, seed)."""


def parts_of(column: str, seed: int) -> list[Dataset]:
    """The rows of every environment, drawn by the seed; the same for all trainings."""
    if column == "ColoredMNIST":
        splits = coloured_mnist((0.1, 0.2), 0.9, seed=seed)
    else:
        *angles, last = map(float, ENVIRONMENTS[column])
        splits = rotated_mnist(angles, last, seed)
    domains = splits["train"]["domain"]
    trained = splits["train"].remove_columns("domain")
    parts = [
        trained.select([row for row, one in enumerate(domains) if one == place]) for place in sorted(set(domains))
    ]
    return [*parts, splits["test"]]


def chosen_and_other(rows: Dataset) -> tuple[Dataset, Dataset]:
    """Every fifth row, and the others; environments are drawn at random, so that every class is in both."""
    places = [[row for row in range(len(rows)) if (row % CHOICE == 0) == wanted] for wanted in (True, False)]
    return rows.select(places[0]), rows.select(places[1])


def run_folder(cell: Cell, runs_dir: Path) -> Path:
    column, method, candidate, left_out, seed = cell
    return (runs_dir / column / f"{method}-{candidate}-{'-'.join(map(str, left_out))}-{seed}").resolve()


def settings_of(cell: Cell, steps: int | None) -> dict[str, Any]:
    """Arguments of the training of a cell, without its rows."""
    column, method, candidate, left_out, seed = cell
    settings = {**SETTINGS, **COLUMNS[column], **CANDIDATES[method][candidate], "seed": seed}
    settings |= {} if steps is None else {"max_steps": steps}
    environments = len(ENVIRONMENTS[column]) - len(left_out)
    if environments == 1:  # nothing is to be invariant over
        settings.pop("objectives", None)
    elif method == "groupdro":
        keywords = {**settings["objectives"]["groupdro"], "num_environments": environments}
        settings["objectives"] = {"groupdro": keywords}
    return settings


def train(cell: Cell, runs_dir: Path, steps: int | None) -> bool:
    """Train one cell unless it is finished; one that fails says why, and is tried again by the next call."""
    folder = run_folder(cell, runs_dir)
    if (folder / "cell.json").exists():
        return True
    try:
        found = measured(cell, folder, steps)
    except Exception as error:  # one cell's failure should not lose the others
        print(f"{cell}: {type(error).__name__}: {error}", flush=True)
        return False
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "cell.json").write_text(json.dumps(found) + "\n")
    print(f"{cell}: {found}", flush=True)
    return True


def measured(cell: Cell, folder: Path, steps: int | None) -> dict[str, Any]:
    """Accuracies in %: `held_out` on the environments that were trained on, and of each that was left out, by its
    place, on the rows to choose by and on the others."""
    column, _, _, left_out, seed = cell
    parts = parts_of(column, seed)
    pairs = {place: chosen_and_other(rows) for place, rows in enumerate(parts) if place not in left_out}
    trained = [rows.add_column("domain", [new] * len(rows)) for new, (_, rows) in enumerate(pairs.values())]
    concatenate_datasets(trained).save_to_disk(folder / "train")
    concatenate_datasets([rows for rows, _ in pairs.values()]).save_to_disk(folder / "held_out")
    given = {"dataset": str(folder / "train"), "test_dataset": str(folder / "held_out"), "overwrite": True}
    made = run_adaptation(parse_arguments([], **settings_of(cell, steps), **given, output_dir=str(folder / "run")))
    found: dict[str, Any] = {"held_out": 100 * made["accuracy"]}
    for place in left_out:
        values = []
        for name, rows in zip(("choice", "test"), chosen_and_other(parts[place])):
            rows.save_to_disk(folder / f"{name}_{place}")
            tested = run_evaluation(str(made.folder), str(folder / f"{name}_{place}"), batch_size=500)
            values.append(100 * tested["accuracy"])
        found[str(place)] = values
    return found


def cells_of(column: str, method: str, seed: int) -> Iterator[Cell]:
    """One environment left out, and every two."""
    places = range(len(ENVIRONMENTS[column]))
    for candidate in range(len(CANDIDATES[method])):
        for count in (1, 2):
            for left_out in itertools.combinations(places, count):
                yield column, method, candidate, left_out, seed


def chosen(found: Mapping[Cell, Mapping[str, Any]], column: str, method: str, seed: int) -> dict[str, list[float]]:
    """Rule -> the accuracy on each test environment of the candidate that the rule chooses there."""
    values: dict[str, list[float]] = {rule: [] for rule in RULES}
    places = range(len(ENVIRONMENTS[column]))
    for test in places:
        scores: dict[str, list[tuple[float, float]]] = {rule: [] for rule in RULES}
        for candidate in range(len(CANDIDATES[method])):
            whole = found[column, method, candidate, (test,), seed]
            by_oracle, accuracy = whole[str(test)]
            left = [
                statistics.mean(found[column, method, candidate, tuple(sorted((test, other))), seed][str(other)])
                for other in places
                if other != test
            ]
            for rule, score in zip(RULES, (whole["held_out"], statistics.mean(left), by_oracle)):
                scores[rule].append((score, accuracy))
        for rule in RULES:
            values[rule].append(max(scores[rule], key=lambda pair: pair[0])[1])
    return values


def finished_cells(runs_dir: Path, seeds: list[int]) -> dict[str, dict[str, dict[str, Any]]]:
    """Column -> method -> seed -> what `chosen` makes of it, where all trainings of a seed are finished."""
    made: dict[str, Any] = {}
    for column, method, seed in itertools.product(ENVIRONMENTS, CANDIDATES, seeds):
        files = {cell: run_folder(cell, runs_dir) / "cell.json" for cell in cells_of(column, method, seed)}
        if all(file.exists() for file in files.values()):
            found = {cell: json.loads(file.read_text()) for cell, file in files.items()}
            made.setdefault(column, {}).setdefault(method, {})[str(seed)] = chosen(found, column, method, seed)
    return made


def table(column: str, methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Averages over the test environments by rule, the published ones beside them, and each test environment."""
    environments = ENVIRONMENTS[column]
    lines = [f"## {column}", "", f"| method | seeds | {' | '.join(RULES)} | published | {' | '.join(environments)} |"]
    lines.append("|---|" + "---:|" * (len(lines[-1].split("|")) - 3))
    for method, runs in methods.items():
        averages = [[statistics.mean(run[rule]) for run in runs.values()] for rule in RULES]
        published = PUBLISHED[column].get(method)
        by_place = [[run[RULES[0]][place] for run in runs.values()] for place in range(len(environments))]
        cells = [method, str(len(runs)), *map(mean_and_deviation, averages)]
        cells.append("" if published is None else " / ".join(map(str, published)))
        lines.append(f"| {' | '.join([*cells, *map(mean_and_deviation, by_place)])} |")
    return [*lines, ""]


def report(made: Mapping[str, Any], machine: str) -> str:
    lines = ["# Domain generalization: two columns of DomainBed", ""]
    lines += [
        (__doc__ or "").split("\n\n")[2].partition(" A cell that")[0],
        "",
        "Accuracy in %, ± is the standard deviation over seeds, each with environments, order and weights of its own; "
        "settings are fixed, so that it holds nothing of a search (DomainBed's bars do: 3 trials of 20 candidates "
        "each). Published: averages under the three rules in the order of the columns. The last columns are the test "
        "environments under the first rule. " + machine,
        "",
    ]
    for column, methods in made.items():
        lines += table(column, methods)
    lines += ["## Candidates", ""]
    lines += [f"- `{method}`: {' or '.join(map(json.dumps, found))}" for method, found in CANDIDATES.items()]
    lines += ["", "All: `" + json.dumps(SETTINGS) + "`; " + json.dumps(COLUMNS) + "."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", nargs="+", choices=list(ENVIRONMENTS), default=list(ENVIRONMENTS))
    parser.add_argument("--methods", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of every training, in place of its own number: a quick trial")
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time, a thread each")
    parser.add_argument("--finished", action="store_true", help="report what there is, train nothing")
    parser.add_argument("--runs_dir", type=Path, default=Path(f"outputs/{RESULTS}"), help="where trainings go")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    groups = itertools.product(arguments.seeds, arguments.columns, arguments.methods)
    cells = [cell for seed, column, method in groups for cell in cells_of(column, method, seed)]
    done = (
        {} if arguments.finished else train_all(train, cells, arguments.workers, arguments.runs_dir, arguments.steps)
    )
    machine = f"{processor_names()[0]}, one thread a training, torch {torch.__version__}, float32."
    made = finished_cells(arguments.runs_dir, arguments.seeds)
    whole = {"machine": machine, "settings": {**SETTINGS, "columns": COLUMNS}, "candidates": CANDIDATES, "found": made}
    write_report(arguments.output_dir, RESULTS, whole, report(made, machine))
    end_by(sum(not one for one in done.values()))


if __name__ == "__main__":
    main()
