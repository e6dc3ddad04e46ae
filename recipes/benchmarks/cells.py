"""What the benchmarks share that train many models: settings, rows, workers, and how figures are told and drawn."""

from __future__ import annotations

import io
import json
import math
import multiprocessing
import re
import shutil
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import matplotlib
import torch
from datasets import Dataset, disable_progress_bars
from PIL import Image

from hf_transfer.data.bundled import load

matplotlib.use("Agg")
from matplotlib import pyplot

Cell = TypeVar("Cell", bound=Hashable)

COLUMNS, COLOURS = 4, 16  # of a picture
HELD_OUT = 5  # every fifth digit of MNIST-5k, where some of its digits should be test data
PERCENT = (
    *("accuracy", "f1", "precision", "recall", "recall_5", "knn", "linear_probe"),
    *("mean_iou", "map", "map_50", "map_75", "pck_05", "pck_10"),
)
"""Ends of the names of metrics that are shares, told in percent."""
COMMON = {
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.05,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
}
"""Arguments of every training."""
SERIES_ENCODER = {
    "model_type": "flowformer",
    "modality": "time_series",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "norm_type": "batch_norm",
    "hidden_dropout_prob": 0.1,
}


def every_fifth(name: str, held_out: bool) -> Dataset:
    """The rows of MNIST-5k held out for testing, or the others: the same digits in whichever look."""
    dataset = load(name)
    return dataset.select([place for place in range(len(dataset)) if (place % HELD_OUT == 0) == held_out])


def data_folder(rows: Mapping[str, Callable[[], Dataset]], name: str, runs_dir: Path) -> str:
    """Where these rows lie; written now unless they are there, so that pictures are read once for all cells."""
    folder = (runs_dir / "data" / name).resolve()
    if not (folder / "state.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        rows[name]().save_to_disk(folder)
    return str(folder)


def one_thread() -> None:
    """What a worker begins with."""
    torch.set_num_threads(1)
    disable_progress_bars()


def train_all(train: Callable[..., Any], cells: Iterable[Cell], workers: int, *arguments: Any) -> dict[Cell, Any]:
    """`train(cell, *arguments)` of every cell; each worker is a process that imports once and trains many."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=one_thread) as pool:
        waiting = {cell: pool.submit(train, cell, *arguments) for cell in cells}
        return {cell: future.result() for cell, future in waiting.items()}


def logged(folder: Path, name: str) -> list[float]:
    """A figure at every evaluation of a pre-training, from the log in its folder; `name` without "eval_"."""
    history = json.loads((folder / "training_log.json").read_text())["log_history"]
    return [entry[f"eval_{name}"] for entry in history if f"eval_{name}" in entry]


def end_by(failed: int) -> None:
    """End with an exit code of 1 where trainings failed, once the report of the others is written."""
    if failed:
        raise SystemExit(f"{failed} trainings failed, as told above; the same command tries them again.")


def mean_and_deviation(values: Sequence[float], digits: int = 1) -> str:
    """ "91.2 ± 0.4", the standard deviation over seeds where there are several."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def write_report(folder: Path, name: str, made: dict[str, Any], text: str) -> None:
    """`NAME.json` and `NAME.md` in the folder, and the text on the screen."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", made)
    (folder / f"{name}.md").write_text(text)
    print(text)


def write_json(file: Path, made: dict[str, Any]) -> None:
    """Indented, but a list of numbers is a line, not a line a number, and so are figures by name."""
    whole = json.dumps(made, indent=1)
    for innermost in (r"\[[^\[\]{}]*\]", r"\{[^{}]*\}"):
        whole = re.sub(innermost, lambda found: re.sub(r"(?<=[\[{])\s+|\s+(?=[\]}])", "", found[0]), whole)
        whole = re.sub(innermost, lambda found: re.sub(r"\n\s*", " ", found[0]), whole)
    file.write_text(whole + "\n")


def as_columns(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Runs by seed as a list a figure, of six digits; what is the same in all runs, and no list, stands once.

    Args:
        runs: seed -> figure -> number, text or settings.
    """
    columns: dict[str, Any] = {"seed": list(runs)}
    for name in dict.fromkeys(name for run in runs.values() for name in run):
        values = [run.get(name) for run in runs.values()]
        values = [float(f"{value:.6g}") if isinstance(value, float) else value for value in values]
        stands_once = not isinstance(values[0], list) and all(value == values[0] for value in values)
        columns[name] = values[0] if stands_once else values
    return columns


def as_runs(columns: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What `as_columns` was made of."""
    runs: dict[str, dict[str, Any]] = {seed: {} for seed in columns["seed"]}
    for name, values in columns.items():
        for place, run in enumerate(runs.values()):
            value = values[place] if isinstance(values, list) else values
            if name != "seed" and value is not None:
                run[name] = value
    return runs


def plot_accuracies(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    baseline: str,
    path: Path,
    labels: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Title -> row -> values of the seeds: a point a seed, the mean as a bar, the baseline as a line.

    Args:
        panels: one for each title.
        baseline: the row that is drawn as a line.
        path: of the picture.
        labels: title -> what the values are, where they are not accuracies in percent.
    """
    most = max(map(len, panels.values()))
    columns = min(COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    size = (3.8 * columns, lines * (1 + 0.3 * most))
    figure, every = pyplot.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for axes in every.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, rows) in zip(every.flat, panels.items()):
        means = {name: statistics.mean(values) for name, values in rows.items()}
        axes.barh(list(means), list(means.values()), color="tab:blue", alpha=0.6)
        for place, values in enumerate(rows.values()):
            axes.plot(values, [place] * len(values), "k.")
        if baseline in means:
            axes.axvline(means[baseline], color="tab:red", linestyle="--")
        axes.invert_yaxis()
        lowest = max(0, min(map(min, rows.values())) - 5)
        axes.set(title=title, xlabel=labels.get(title, "accuracy, %"), xlim=(lowest, None))
    save_picture(figure, path)


def save_picture(figure: pyplot.Figure, path: Path) -> None:
    """A small PNG: few colours are enough for charts, and the results stay light to clone."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=90)
    pyplot.close(figure)
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(path, optimize=True)
