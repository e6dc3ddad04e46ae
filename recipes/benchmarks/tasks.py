"""Methods on tasks other than the classification of whole rows: few seeds, small models, held-out figures.

    python recipes/benchmarks/tasks.py                                       # everything, three seeds
    python recipes/benchmarks/tasks.py --settings names_old_to_new --methods source_only mcc --seeds 0

Every module tasks_*.py beside this one names its settings in `SETTINGS`: {name: Setting}. A cell is one training; one
that is finished in --runs_dir is not run again. Writes `tasks.json`, `.md` and `.png` into the output folder,
with the finished cells of all settings.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from cells import PERCENT, mean_and_deviation, plot_accuracies, train_all, write_report
from machine import processor_names
from task_setting import Setting

from hf_transfer.runs.adapt import MODEL_FOLDER, run_adaptation
from hf_transfer.runs.arguments import parse_arguments

HERE = Path(__file__).parent
Cell = tuple[str, str, int]
"""(setting, method, seed)."""


def all_settings() -> dict[str, Setting]:
    """Those of every module tasks_*.py."""
    found: dict[str, Setting] = {}
    for path in sorted(HERE.glob("tasks_*.py")):
        found |= importlib.import_module(path.stem).SETTINGS
    return found


def train(cell: Cell, runs_dir: Path) -> dict[str, Any]:
    """The results of one cell; of the earlier run where it is finished."""
    name, method, seed = cell
    setting = all_settings()[name]
    folder = (runs_dir / name / f"{method}-{seed}").resolve()
    if (folder / "cell.json").exists():
        return json.loads((folder / "cell.json").read_text())
    settings = {**setting.arguments, **setting.methods[method], "seed": seed, "output_dir": str(folder)}
    if setting.start is not None:
        settings |= {"architecture": None, "model": str(start_of(setting, runs_dir))}
    started = time.process_time()
    metrics = run_adaptation(parse_arguments([], **settings, overwrite=True, diagnostics=False))
    found = {"metrics": {name: metrics[name] for name in setting.metrics}}
    found |= {"seconds": round(time.process_time() - started, 1), "processor": processor_names()[0]}
    shutil.rmtree(folder / MODEL_FOLDER)
    (folder / "cell.json").write_text(json.dumps(found, indent=2) + "\n")
    print(f"{name} {method} {seed}: {found}", flush=True)
    return found


def start_of(setting: Setting, runs_dir: Path) -> Path:
    """The model that the runs of a setting start from; trained where it is not there yet."""
    name, arguments = setting.start
    folder = (runs_dir / "starts" / name).resolve()
    if not (folder / MODEL_FOLDER).exists():
        run_adaptation(parse_arguments([], **{**arguments, "output_dir": str(folder)}, overwrite=True))
    return folder / MODEL_FOLDER


def finished(runs_dir: Path) -> dict[str, Any]:
    """Setting -> method -> seed -> results of all finished cells."""
    found: dict[str, Any] = {}
    for name, setting in all_settings().items():
        for method in setting.methods:
            for path in sorted((runs_dir / name).glob(f"{method}-*/cell.json")):
                seed = path.parent.name.rsplit("-", 1)[1]
                found.setdefault(name, {}).setdefault(method, {})[seed] = json.loads(path.read_text())
    return found


def shown(metric: str, runs: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """A metric of every seed, shares in percent."""
    factor = 100 if metric.endswith(PERCENT) else 1
    return [factor * run["metrics"][metric] for run in runs.values()]


def to_markdown(report: Mapping[str, Any]) -> str:
    """A table for every setting: mean and standard deviation over the seeds."""
    lines = ["# Methods on other tasks", "", report["machine"], ""]
    for name, methods in report["settings"].items():
        setting = all_settings()[name]
        heads = [f"{metric}, %" if metric.endswith(PERCENT) else metric for metric in setting.metrics]
        lines += [f"## {name}", "", setting.says, ""]
        lines += ["| method | " + " | ".join(heads) + " | seeds | seconds |"]
        lines += ["|---|" + "--:|" * (len(setting.metrics) + 2)]
        for method, runs in methods.items():
            digits = {metric: 1 if metric.endswith(PERCENT) else 3 for metric in setting.metrics}
            cells = [mean_and_deviation(shown(metric, runs), digits[metric]) for metric in setting.metrics]
            seconds = statistics.median(run["seconds"] for run in runs.values())
            lines.append(f"| {method} | {' | '.join(cells)} | {len(runs)} | {seconds:.0f} |")
        lines.append("")
    return "\n".join(lines)


def draw(settings: Mapping[str, Any], path: Path) -> None:
    """The main metric of every method, a panel a setting."""
    mains = {name: all_settings()[name].metrics[0] for name in settings}
    panels = {
        name: {method: shown(mains[name], runs) for method, runs in methods.items()}
        for name, methods in settings.items()
    }
    plot_accuracies(panels, "source_only", path, {name: f"{metric}, %" for name, metric in mains.items()})


def main() -> None:
    settings = all_settings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", default=list(settings), choices=list(settings))
    parser.add_argument("--methods", nargs="+", default=None)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs/tasks"))
    parser.add_argument("--output_dir", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    cells = [
        (name, method, seed)
        for name in arguments.settings
        for seed in arguments.seeds
        for method in settings[name].methods
        if arguments.methods is None or method in arguments.methods
    ]
    train_all(train, cells, arguments.workers, arguments.runs_dir)
    found = finished(arguments.runs_dir)
    runs = [run for methods in found.values() for seeds in methods.values() for run in seeds.values()]
    machine = f"{' or '.join(sorted({run['processor'] for run in runs}))}, one thread a training, torch "
    machine += f"{torch.__version__}, float32; mean ± standard deviation over the seeds, median of processor seconds."
    report = {"machine": machine, "settings": found}
    write_report(arguments.output_dir, "tasks", report, to_markdown(report))
    draw(report["settings"], arguments.output_dir / "tasks.png")


if __name__ == "__main__":
    main()
