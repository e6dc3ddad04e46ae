"""Every strategy of task adaptation from real starting points to real tasks with few and with many labels.

    python recipes/benchmarks/task_adaptation.py                                          # everything, three seeds
    python recipes/benchmarks/task_adaptation.py --targets digits_10 --strategies l2_sp lora --seeds 0
    python recipes/benchmarks/task_adaptation.py --workers 2                              # two trainings at a time

A cell is one training of a strategy on a target with a seed; one that is finished in --runs_dir is not run again, so
a run that was interrupted goes on. Accuracy is on rows that no training has seen; metric learning is tested with the
training rows as the support of all classes. Where the start is a digit classifier, its accuracy on digits like its
own is measured before and after: how much a strategy forgets.
Writes `task_adaptation.json`, `.md` and `.png` into the output folder.

task_adaptation_targets.py says what a target, a strategy and a start are, and which packages they need.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from cells import as_columns, data_folder, end_by, mean_and_deviation, plot_accuracies, train_all, write_report
from datasets import Dataset, load_from_disk
from machine import processor_names
from peft import PeftModel
from task_adaptation_targets import (
    DATA,
    EVERY_TASK,
    FINE_TUNING,
    MODALITIES,
    SETTINGS,
    TARGETS,
    TASKS,
    Strategy,
    Target,
    adapted_to_domain,
    starting_point,
    strategies,
    with_folders,
)

from hf_transfer.core.registry import registered
from hf_transfer.data.checks import column_values, label_column
from hf_transfer.data.prepare import prepare
from hf_transfer.few_shot import METRICS as METRIC_LEARNING
from hf_transfer.modeling.anatomy import head_parameter_names
from hf_transfer.runs.adapt import MODEL_FOLDER, finish, make_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.training.trainer import TransferTrainer
from hf_transfer.tuners.difference import DifferenceConfig, changed_parameters

Cell = tuple[str, str, int]
"""(target, strategy, seed)."""


def run_folder(cell: Cell, runs_dir: Path) -> Path:
    target, strategy, seed = cell
    return runs_dir / target / f"{strategy}-{seed}"


def start_and_strategy(cell: Cell, runs_dir: Path) -> tuple[str, Strategy]:
    """The folder of a cell's starting point, and its strategy from there."""
    target = TARGETS[cell[0]]
    start = starting_point(target.start, runs_dir)
    return start, strategies(target, start)[cell[1]]


def settings_of(cell: Cell, runs_dir: Path) -> dict[str, Any]:
    """The arguments of a cell's run."""
    name, chosen, seed = cell
    target = TARGETS[name]
    start, strategy = start_and_strategy(cell, runs_dir)
    settings = {**SETTINGS, **target.settings, "seed": seed, "output_dir": str(run_folder(cell, runs_dir).resolve())}
    settings["model"] = adapted_to_domain(target, start, runs_dir) if chosen == "dapt" else start
    if "peft" in strategy.settings:
        settings |= {"learning_rate": target.adapter_rate, "head_learning_rate_multiplier": 1.0}
    settings |= strategy.settings
    if "peft" in settings and "task_type" not in settings["peft"]:
        settings["peft"] = {"modules_to_save": list(target.own_modules), **settings["peft"]}
    if target.labels_per_class is not None:
        settings["labels_per_class"] = target.labels_per_class
    return with_folders({**settings, "overwrite": True}, runs_dir)


def train(cell: Cell, runs_dir: Path) -> dict[str, Any]:
    """The results of one cell; of the earlier run where it is finished. A run that fails says why under `error`."""
    name, chosen, seed = cell
    target = TARGETS[name]
    file = run_folder(cell, runs_dir).resolve() / "cell.json"
    if file.exists():
        return json.loads(file.read_text())
    try:
        found = measure(parse_arguments([], **settings_of(cell, runs_dir)), target, runs_dir)
    except Exception as error:  # one cell's failure should not lose the others
        print(f"{name} {chosen} {seed}: {type(error).__name__}: {error}", flush=True)
        return {"error": f"{type(error).__name__}: {error}"}
    start, strategy = start_and_strategy(cell, runs_dir)
    found |= {"family": strategy.family, "settings": json.loads(json.dumps(strategy.settings).replace(start, "START"))}
    file.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{name} {chosen} {seed}: {100 * found['accuracy']:.1f} in {found['seconds']} s", flush=True)
    return found


def measure(arguments: tuple, target: Target, runs_dir: Path) -> dict[str, Any]:
    """Train, and take the figures of one cell; the model folder goes once its size is known."""
    started = time.perf_counter()
    trainer, data = make_adaptation(arguments)
    metrics = finish(trainer, arguments, data)
    seconds = time.perf_counter() - started
    folder = Path(arguments[3].output_dir) / MODEL_FOLDER
    found = {
        "accuracy": metrics["accuracy"],
        "trained_parameters": trained_parameters(trainer),
        "parameters": sum(parameter.numel() for parameter in trainer.adapted_model.parameters()),
        "saved_bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        "seconds": round(seconds, 1),
    }
    method = next((name for name in arguments[3].objectives or {} if name in METRIC_LEARNING), None)
    if method is not None:
        found["accuracy"] = nearest_support(trainer, data.train, data.test, method)
    if target.start == "mnist":
        kept = load_from_disk(data_folder(DATA, "mnist_test", runs_dir))
        rows = prepare(kept, trainer.adapted_model.config, trainer.processing_class)
        found["source_accuracy"] = trainer.evaluate(rows, metric_key_prefix="source")["source_accuracy"]
    shutil.rmtree(folder)
    return found


def trained_parameters(trainer: TransferTrainer) -> int:
    """Weights that a task has of its own: of a difference those that changed, of a frozen model the head."""
    model = trainer.adapted_model
    if isinstance(model, PeftModel):
        if isinstance(model.active_peft_config, DifferenceConfig):
            kept = sum(p.numel() for name, p in model.named_parameters() if "modules_to_save" in name)
            return changed_parameters(model).changed + kept
    elif trainer.args.backbone_freeze_ratio == 1:
        head = head_parameter_names(model)
        return sum(parameter.numel() for name, parameter in model.named_parameters() if name in head)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def nearest_support(trainer: TransferTrainer, train_rows: Dataset, test_rows: Dataset, method: str) -> float:
    """Accuracy on the test rows with as many training rows of every class as the rarest has for support."""
    (support, known), (queries, wanted) = (features_of(trainer, rows) for rows in (train_rows, test_rows))
    classes = known.unique()
    shots = int(torch.bincount(known)[classes].min())
    support = torch.stack([support[known == label][:shots] for label in classes])
    likely = registered(METRIC_LEARNING, method, "method").log_probabilities(support, queries).argmax(dim=1)
    return float((classes[likely] == wanted).double().mean())


def features_of(trainer: TransferTrainer, rows: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [n, D] and labels [n] of some rows."""
    column = label_column(rows, "given")
    trainer.transfer_model.returns_features = True
    try:
        _, features = trainer.predict(rows.remove_columns(column)).predictions
    finally:
        trainer.transfer_model.returns_features = False
    return torch.from_numpy(features), torch.from_numpy(column_values(rows, column)).long()


def report(arguments: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Train what is not trained yet; the report of all finished cells of --runs_dir, and how many trainings failed."""
    for name in arguments.targets:
        with_folders(TARGETS[name].settings, arguments.runs_dir)  # written before workers look for them
        start = starting_point(TARGETS[name].start, arguments.runs_dir)
        if "dapt" in strategies(TARGETS[name], start) and "dapt" in arguments.strategies:
            adapted_to_domain(TARGETS[name], start, arguments.runs_dir)
    cells = [
        (name, strategy, seed)
        for name in arguments.targets
        for seed in arguments.seeds
        for strategy in strategies(TARGETS[name], "")
        if strategy in arguments.strategies
    ]
    tried = train_all(train, cells, arguments.workers, arguments.runs_dir)
    found: dict[str, Any] = {}
    for name, target in TARGETS.items():
        for strategy in strategies(target, ""):
            runs = {}
            for path in sorted((arguments.runs_dir / name).glob(f"{strategy}-*/cell.json")):
                runs[path.parent.name.rsplit("-", 1)[1]] = json.loads(path.read_text())
            if runs:
                found.setdefault(name, {})[strategy] = runs
    machine = f"{processor_names()[0]}, one thread a training, torch {torch.__version__}, float32."
    results = arguments.runs_dir / "starts" / "mnist" / MODEL_FOLDER / "results.json"
    before = json.loads(results.read_text())["accuracy"] if results.exists() else None
    failed = sum("error" in run for run in tried.values())
    return {"machine": machine, "source_accuracy": before, "targets": found}, failed


def mean_of(runs: dict[str, dict], key: str) -> float:
    return statistics.mean(run[key] for run in runs.values())


def markdown(made: dict[str, Any]) -> str:
    """A table of strategies for each target, what was forgotten, and the remarks table of families."""
    lines = ["# Task adaptation: every strategy on every target", "", made["machine"], ""]
    lines.append(
        "Accuracy in % on rows that no training has seen, mean ± standard deviation over the seeds. Methods have "
        "their usual settings; from the digit classifier EWC has strength 40,000 and LwF weight 1, by what they kept "
        "on seed 0 of `digits_10`; the rates, widths and shares of the text task's adapters by 600 verses of the "
        "training chapters. Metric learning sees about as many rows as the others, in episodes. `trained` is a share "
        "of the whole model's parameters. Seconds are those of a machine that other programs shared."
    )
    for name, table in made["targets"].items():
        target = TARGETS[name]
        some = "all" if target.labels_per_class is None else target.labels_per_class
        has_source = any("source_accuracy" in run for runs in table.values() for run in runs.values())
        lines += ["", f"## {name}", ""]
        lines.append(f"From `{target.start}`, {some} labels a class, {target.settings['max_steps']} steps.")
        if has_source:
            lines.append(
                f"The start's accuracy on digits like its own was {100 * made['source_accuracy']:.1f} before; "
                "the column `source after` says what is left."
            )
        head = ["strategy", "family", "seeds", "accuracy", "trained", "MB saved", "seconds"]
        head += ["source after"] if has_source else []
        lines += ["", "| " + " | ".join(head) + " |", "|---|---|" + "--:|" * (len(head) - 2)]
        whole = next(iter(table.get(FINE_TUNING, next(iter(table.values()))).values()))["parameters"]
        for strategy, runs in sorted(table.items(), key=lambda item: -mean_of(item[1], "accuracy")):
            some_run = next(iter(runs.values()))
            share = 100 * some_run["trained_parameters"] / whole
            cells = [strategy, some_run["family"], str(len(runs))]
            cells.append(mean_and_deviation([100 * run["accuracy"] for run in runs.values()]))
            cells += [f"{share:.1f} %", f"{mean_of(runs, 'saved_bytes') / 1e6:.2f}", f"{mean_of(runs, 'seconds'):.0f}"]
            if has_source:
                cells.append(mean_and_deviation([100 * run["source_accuracy"] for run in runs.values()]))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *remarks(made["targets"])]) + "\n"


def remarks(targets: dict[str, Any]) -> list[str]:
    """The field's remarks table: each family's mean over its strategies, in points over vanilla fine-tuning."""
    gains: dict[str, dict[bool, list[float]]] = {}
    shares: dict[str, list[float]] = {}
    starts: dict[str, set[str]] = {}
    for name, table in targets.items():
        if FINE_TUNING not in table:
            continue
        plain = table[FINE_TUNING]
        for runs in table.values():
            family = next(iter(runs.values()))["family"]
            shared = sorted(set(runs) & set(plain))
            gain = [100 * (runs[seed]["accuracy"] - plain[seed]["accuracy"]) for seed in shared]
            gains.setdefault(family, {True: [], False: []})[TARGETS[name].few] += gain
            shares.setdefault(family, []).append(mean_of(runs, "saved_bytes") / mean_of(plain, "saved_bytes"))
            starts.setdefault(family, set()).add(MODALITIES[TARGETS[name].start])
    lines = ["## The field's remarks table", ""]
    lines.append(
        "Points over plain fine-tuning with the same seeds, mean over a family's strategies and the targets they ran "
        "on; what a task adds to the disk beside what fine-tuning saves; the modalities of these targets; the labels "
        "that the methods take, which tests/task_adaptation/test_any_model.py holds them to."
    )
    lines += ["", "| family | few labels | many labels | saved per task | modalities | tasks |"]
    lines.append("|---|--:|--:|--:|---|---|")
    for family, by_size in gains.items():
        points = [f"{statistics.mean(by_size[few]):+.1f}" if by_size[few] else "-" for few in (True, False)]
        share = f"{100 * statistics.mean(shares[family]):.0f} %"
        lines.append(
            f"| {family} | {' | '.join(points)} | {share} | {', '.join(sorted(starts[family]))} "
            f"| {TASKS.get(family, EVERY_TASK)} |"
        )
    return lines


def main() -> None:
    known = list(dict.fromkeys(name for target in TARGETS.values() for name in strategies(target, "")))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--strategies", nargs="+", choices=known, default=known)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time, a thread each")
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs/task_adaptation"), help="where trainings go")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    made, failed = report(arguments)
    stored = {name: {one: as_columns(runs) for one, runs in table.items()} for name, table in made["targets"].items()}
    write_report(arguments.output_dir, "task_adaptation", {**made, "targets": stored}, markdown(made))
    accuracies = {
        target: {strategy: [100 * run["accuracy"] for run in runs.values()] for strategy, runs in table.items()}
        for target, table in made["targets"].items()
    }
    plot_accuracies(accuracies, FINE_TUNING, arguments.output_dir / "task_adaptation.png")
    end_by(failed)


if __name__ == "__main__":
    main()
