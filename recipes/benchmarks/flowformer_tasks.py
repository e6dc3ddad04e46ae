"""Flowformer beside its softmax twin on the five tasks: same recipe, same seeds, same steps; score, speed and memory.

    python recipes/benchmarks/flowformer_tasks.py                           # all tasks, three seeds
    python recipes/benchmarks/flowformer_tasks.py --tasks mnist --seeds 0   # one run a twin
    python recipes/benchmarks/flowformer_tasks.py --workers 2               # two trainings at a time, a thread each

The twin is the same model with `attn_implementation: sdpa`, PyTorch's own softmax attention. Each training is a
process of its own that runs a recipe of recipes/flowformer; one that is finished in --runs_dir is not run again, so a
run that was interrupted goes on. A step is timed apart from training, both twins in turn in one process.
Writes `flowformer_tasks.json`, `.md` and `.png` into the output folder; other tasks that are there already are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import matplotlib
import torch
import yaml
from cells import mean_and_deviation, save_picture, write_report
from machine import growth_mib, processors_of, resident_mib, restart_peak

from hf_transfer.runs.adapt import make_pretraining
from hf_transfer.runs.arguments import parse_arguments, read_yaml

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).parents[2]
RESULTS = "flowformer_tasks"
TWINS = ("flow", "sdpa")


@dataclass(frozen=True)
class Metric:
    """What the twins of a task are compared by: a name in `results.json`."""

    name: str
    higher_is_better: bool = True
    scale: float = 1.0

    def of(self, results: dict[str, float]) -> float:
        return self.scale * results[self.name]


ACCURACY = Metric("accuracy", scale=100.0)
PERPLEXITY = Metric("perplexity", higher_is_better=False)
SCORE = Metric("normalised_score")
TASKS = {
    "list_ops": ACCURACY,
    "list_ops_short": ACCURACY,
    "mnist": ACCURACY,
    "emoji": ACCURACY,
    "wikipedia": PERPLEXITY,
    "bible": PERPLEXITY,
    "japanese_vowels": ACCURACY,
    "basic_motions": ACCURACY,
    "acsf1": ACCURACY,
    "arrow_head": ACCURACY,
    "gun_point": ACCURACY,
    "italy_power_demand": ACCURACY,
    "osu_leaf": ACCURACY,
    "pickup_gesture": ACCURACY,
    "offline_rl": SCORE,
    "offline_rl_cartpole": SCORE,
    "offline_rl_acrobot": SCORE,
    "offline_rl_behaviour_cloning": SCORE,
}


def recipe(task: str) -> Path:
    return ROOT / "recipes" / "flowformer" / f"{task}.yaml"


def twin_settings(task: str, twin: str, folder: Path, seed: int = 0) -> dict:
    """The recipe of a task with the attention of a twin."""
    settings = read_yaml(recipe(task))
    architecture = {**settings["architecture"], "attn_implementation": twin}
    return {**settings, "architecture": architecture, "seed": seed, "output_dir": str(folder), "disable_tqdm": True}


def train(task: str, twin: str, seed: int, runs_dir: Path) -> dict[str, float]:
    """The metrics of one training; of the earlier one where it is finished."""
    folder = (runs_dir / f"{task}_{twin}_{seed}").resolve()
    results = folder / "model" / "results.json"
    if not results.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(twin_settings(task, twin, folder, seed)))
        command = [sys.executable, str(ROOT / "recipes" / "pretrain.py"), str(folder / "recipe.yaml"), "--overwrite"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        finished = subprocess.run(command, capture_output=True, text=True, env=environment)
        if finished.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stderr[-3000:]}")
    found = json.loads(results.read_text())
    print(f"{task} {twin} seed {seed}: {TASKS[task].of(found):.2f}", flush=True)
    return found


def make_batches(task: str, twin: str, scratch: Path) -> tuple[torch.nn.Module, Iterator[dict]]:
    """The model and the training batches of a recipe."""
    file = scratch / f"{task}_{twin}.yaml"
    scratch.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(twin_settings(task, twin, scratch / twin)))
    trainer, _ = make_pretraining(parse_arguments([str(file), "--overwrite"]))
    # a small data set has fewer batches than are timed
    return trainer.transfer_model, chain.from_iterable(repeat(trainer.get_train_dataloader()))


def step(model: torch.nn.Module, batch: dict) -> tuple[float, float]:
    """Milliseconds of a forward and backward pass, and the MiB it adds at its peak."""
    model.zero_grad(set_to_none=True)
    restart_peak()
    before, start = resident_mib("VmRSS"), time.perf_counter()
    output = model(**batch)
    (output["loss"] if isinstance(output, dict) else output.loss).backward()
    milliseconds = 1e3 * (time.perf_counter() - start)
    return milliseconds, growth_mib(before)


def cost(task: str, scratch: Path, rounds: int = 12) -> dict[str, dict[str, float]]:
    """Median step time and the largest step memory of both twins, which take turns on the same kind of batches.

    The first two rounds do not count: they load code and fill caches.
    """
    made = {twin: make_batches(task, twin, scratch) for twin in TWINS}
    measured: dict[str, list[tuple[float, float]]] = {twin: [] for twin in TWINS}
    for _ in range(rounds):
        for twin, (model, batches) in made.items():
            measured[twin].append(step(model.train(), next(batches)))
    return {
        twin: {
            "step_ms": round(statistics.median(ms for ms, _ in steps[2:]), 1),
            "step_mib": round(max(mib for _, mib in steps[2:]), 1),
        }
        for twin, steps in measured.items()
    }


def cost_in_fresh_processes(task: str, scratch: Path) -> dict[str, dict[str, float]]:
    """`cost`: the times of one process, the memory of a slower one that gives freed blocks back to the system at once.

    Otherwise a step that takes blocks which the step before kept would seem to need none.
    """
    command = [sys.executable, __file__, "--cost", task, "--runs_dir", str(scratch)]
    found = []
    for settings in ({}, {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "0"}):
        environment = {**os.environ, **settings}
        output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment).stdout
        found.append(json.loads(output.splitlines()[-1]))
    return {twin: {**found[0][twin], "step_mib": found[1][twin]["step_mib"]} for twin in TWINS}


def verdict(metric: Metric, scores: dict[str, list[float]]) -> str:
    """Whether flow wins: "ties" where the means are closer than the larger deviation over the seeds."""
    if len(scores["flow"]) < 2:
        return "one seed: open"
    gap = statistics.mean(scores["flow"]) - statistics.mean(scores["sdpa"])
    if abs(gap) <= max(map(statistics.stdev, scores.values())):
        return "ties"
    return "wins" if (gap > 0) == metric.higher_is_better else "loses"


def markdown(report: dict) -> str:
    """The report as Markdown: a row a task."""
    lines = ["# Flowformer and its softmax twin on five tasks", "", report["machine"], ""]
    lines += [
        "| task | metric | seeds | flow | sdpa | flow | time, flow / sdpa | memory, flow / sdpa |",
        "|---|---|--:|--:|--:|---|--:|--:|",
    ]
    for task, row in report["tasks"].items():
        time_ratio = row["cost"]["flow"]["step_ms"] / row["cost"]["sdpa"]["step_ms"]
        memory_ratio = row["cost"]["flow"]["step_mib"] / row["cost"]["sdpa"]["step_mib"]
        cells = (
            f"[{task}](../../flowformer/{task}.yaml)",
            row["metric"],
            str(len(row["seeds"])),
            *(mean_and_deviation(row["scores"][twin], digits=2) for twin in TWINS),
            row["verdict"],
            f"{time_ratio:.2f}",
            f"{memory_ratio:.2f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(report: dict, path: Path) -> None:
    """A panel a task: every seed of both twins as a point, the mean as a bar."""
    figure, panels = pyplot.subplots(1, len(report["tasks"]), figsize=(2.2 * len(report["tasks"]), 3), squeeze=False)
    for axes, (task, row) in zip(panels[0], report["tasks"].items()):
        axes.bar(TWINS, [statistics.mean(row["scores"][twin]) for twin in TWINS], color=["tab:blue", "tab:gray"])
        for place, twin in enumerate(TWINS):
            axes.plot([place] * len(row["scores"][twin]), row["scores"][twin], "k.")
        axes.set(title=task, ylabel=row["metric"])
    figure.tight_layout()
    save_picture(figure, path)


def run(arguments: argparse.Namespace) -> dict | None:
    """Train what is not trained yet, then measure the steps one task at a time."""
    jobs = [(task, twin, seed) for task in arguments.tasks for seed in arguments.seeds for twin in TWINS]
    with ThreadPoolExecutor(arguments.workers) as pool:
        results = dict(zip(jobs, pool.map(lambda job: train(*job, arguments.runs_dir), jobs)))
    if arguments.train_only:
        return None
    tasks = {}
    for name in arguments.tasks:
        metric = TASKS[name]
        scores = {twin: [metric.of(results[name, twin, seed]) for seed in arguments.seeds] for twin in TWINS}
        tasks[name] = {
            "metric": metric.name,
            "seeds": arguments.seeds,
            "scores": {twin: [round(score, 3) for score in values] for twin, values in scores.items()},
            "verdict": verdict(metric, scores),
            "cost": cost_in_fresh_processes(name, arguments.runs_dir),
            "settings": read_yaml(recipe(name)),
        }
        print(name, tasks[name]["scores"], tasks[name]["cost"], flush=True)
    file = arguments.output_dir / f"{RESULTS}.json"
    earlier = json.loads(file.read_text()) if file.exists() else {"machine": "", "tasks": {}}
    known = {**earlier["tasks"], **tasks}
    processors = processors_of(earlier["machine"] if len(known) > len(tasks) else "")
    machine = f"{processors}, one thread a training, torch {torch.__version__}, float32."
    return {"machine": machine, "tasks": {name: known[name] for name in TASKS if name in known}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs/flowformer_tasks"), help="where trainings go")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--train_only", action="store_true", help="train what is not trained yet; report later")
    parser.add_argument("--cost", choices=list(TASKS), help="print what a step of one task costs, and stop")
    arguments = parser.parse_args()
    if arguments.cost:
        torch.set_num_threads(1)
        print(json.dumps(cost(arguments.cost, arguments.runs_dir / "cost")))
        return
    report = run(arguments)
    if report is None:
        return
    write_report(arguments.output_dir, RESULTS, report, markdown(report))
    plot(report, arguments.output_dir / f"{RESULTS}.png")


if __name__ == "__main__":
    main()
