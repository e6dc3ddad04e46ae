"""What a run says at its end, on the error stream: figures, where the model lies, and the commands that come next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from rich.console import Console
from rich.table import Table
from transformers import EvalPrediction
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_transfer.evaluation.answers import labelled_units
from hf_transfer.evaluation.per_class import class_figures, confusion_of
from hf_transfer.hub import TableFact
from hf_transfer.runs.arguments import Experiment
from hf_transfer.runs.guard import ADAPTED, SOURCE_ONLY
from hf_transfer.runs.saving import read_results
from hf_transfer.tasks import task_named
from hf_transfer.training.checkpoints import last_complete_checkpoint

MOST_CLASSES = 30
"""Classes up to which the end of a run shows the figures of each."""
MEASURING = 10_000
"""Width of a screen on which a table is as wide as it needs to be."""
MOST_PAIRS = 12
"""Of classes taken for another, in place of a confusion that does not fit."""


@dataclass
class Remembering:
    """`compute_metrics` of a Trainer that keeps what it measured, so that nothing is predicted twice."""

    compute: Callable[[EvalPrediction], dict[str, float]]
    last: EvalPrediction | None = None

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        self.last = prediction
        return self.compute(prediction)

    def class_figures(self, config: Any) -> dict[str, dict[str, float]]:
        """Of the rows measured last, by a model of this configuration; nothing where classes were not measured."""
        if self.last is None:
            return {}
        if (own := getattr(self.compute, "class_figures", None)) is not None:
            return own(self.last, config)
        if config.problem_type is None:
            return {}
        names = [config.id2label[index] for index in range(config.num_labels)]
        return class_figures(*labelled_units(self.last.predictions, self.last.label_ids), config.problem_type, names)

    def confusion(self, config: Any) -> dict[str, dict[str, int]]:
        """As `class_figures`, how many rows, or words, of each class were taken for each."""
        if self.last is None or config.problem_type is None or hasattr(self.compute, "class_figures"):
            return {}
        names = [config.id2label[index] for index in range(config.num_labels)]
        return confusion_of(*labelled_units(self.last.predictions, self.last.label_ids), config.problem_type, names)


def class_table(figures: Mapping[str, Mapping[str, float]], measured_on: str) -> TableFact:
    """The figures of each class, for the card."""
    columns = figure_names(figures)
    rows = [[name, *(one[figure] for figure in columns)] for name, one in figures.items()]
    return TableFact("Figures of each class", ["class", *columns], rows, f"Measured on {measured_on}.")


def figure_names(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What is told of each class: precision, recall and F1, or average precisions of boxes."""
    return list(next(iter(figures.values()), ()))


def tell_end(
    folder: Path, results: Mapping[str, Any], experiment: Experiment, reference: Path | None, verdict: str = ""
) -> None:
    """Print the tables and the next commands; main process only.

    Args:
        folder: of the saved model.
        results: metrics by name, and `validators`, `per_class`, `kept` where a run has them.
        experiment: of the run.
        reference: folder of the source-only model, where the run compared with one.
        verdict: of the guard, in words.
    """
    if not PartialState().is_main_process:
        return
    console = Console(stderr=True, highlight=False)
    rows = {"model": results}
    if reference is not None:
        of_reference = read_results(reference) or {}
        kept_reference = results.get("kept") == SOURCE_ONLY
        rows = {f"{ADAPTED} (not kept)" if kept_reference else ADAPTED: {} if kept_reference else results}
        rows[SOURCE_ONLY + (" (kept)" if kept_reference else "")] = results if kept_reference else of_reference
    names = [name for name, value in results.items() if isinstance(value, float | int)]
    if names:
        table = Table("", *rows, box=None)
        for name in names:
            table.add_row(name, *(number(row.get(name)) for row in rows.values()))
        console.print(unbroken(table))
    print_classes(console, results.get("per_class") or {})
    lines = [verdict] if verdict else []
    lines += [f"Saved: {folder} (weights, README.md as the card, results.json)."]
    if (figures := Path(experiment.config.output_dir) / "figures").is_dir() and results.get("validators"):
        lines.append(f"Pictures: {figures}.")
    print("\n".join([*lines, "Next:", *(f"  {line}" for line in next_commands(folder, experiment))]), file=sys.stderr)


def tell_classes(
    figures: Mapping[str, Mapping[str, float]], confusion: Mapping[str, Mapping[str, int]] | None = None
) -> None:
    """Print the figures of each class, and which was taken for which, on the error stream; main process only."""
    if PartialState().is_main_process:
        console = Console(stderr=True, highlight=False)
        print_classes(console, figures)
        print_confusion(console, confusion or {})


def print_classes(console: Console, figures: Mapping[str, Mapping[str, float]]) -> None:
    """A row a class, where there are few."""
    if not figures or len(figures) > MOST_CLASSES:
        return
    columns = figure_names(figures)
    table = Table("class", *columns, box=None)
    for name, one in figures.items():
        table.add_row(name, *(number(one[figure]) for figure in columns))
    console.print(unbroken(table))


def print_confusion(console: Console, confusion: Mapping[str, Mapping[str, int]]) -> None:
    """A row a class and a column a predicted class; where these do not fit, the pairs mistaken most often."""
    if not confusion:
        return
    table = Table("class, as predicted:", *confusion, box=None)
    for name, row in confusion.items():
        table.add_row(name, *map(str, row.values()))
    width = Console(width=MEASURING).measure(unbroken(table)).maximum
    if width > console.width or len(confusion) > MOST_CLASSES:
        cells = [(rows, name, other) for name, row in confusion.items() for other, rows in row.items()]
        pairs = sorted((cell for cell in cells if cell[0] and cell[1] != cell[2]), reverse=True)
        table = Table("class", "taken for", "rows", box=None)
        for rows, name, other in pairs[:MOST_PAIRS]:
            table.add_row(name, other, str(rows))
    console.print(unbroken(table))


def unbroken(table: Table) -> Table:
    """The table with names that no narrow screen breaks inside a word: they are cut by an ellipsis at worst."""
    for index, column in enumerate(table.columns):
        column.no_wrap, column.justify = True, "right" if index else "left"
    return table


def number(value: Any) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"


def next_commands(folder: Path, experiment: Experiment) -> list[str]:
    """What to type next."""
    data_args, config = experiment.data, experiment.config
    model = shlex.quote(str(folder))
    rows = shlex.quote(data_args.target_dataset or data_args.dataset)
    task, commands = task_named(experiment.model.task), []
    if task.reads_labels:
        commands.append(f"hf-transfer predict {model} --dataset {rows}   # or rows without labels")
        if data_args.test_dataset is None:
            commands.append(f"hf-transfer evaluate {model} --dataset LABELLED_ROWS")
    elif task.reads == "image_text" and data_args.test_dataset is None:
        commands.append(f"hf-transfer evaluate {model} --dataset LABELLED_ROWS")
    elif task.reads in ("image", "text"):  # there is no head yet that could predict
        commands.append(f"hf-transfer rank {model} --dataset LABELLED_ROWS")
        commands.append(f"hf-transfer adapt --model {model} --dataset LABELLED_ROWS")
    if not config.push_to_hub:
        commands.append(f"hf-transfer push {model} ORG/NAME")
    return commands


def tell_interruption(output_dir: str | Path, words: Sequence[str] | None = None) -> None:
    """What Ctrl-C left, and how to go on.

    Args:
        output_dir: of the run.
        words: the whole command that was interrupted, where it is known.
    """
    checkpoint = last_complete_checkpoint(output_dir)
    command = "the same command with --resume, and without --overwrite"
    if words is not None:
        command = shlex.join([*(word for word in words if word not in ("--overwrite", "--resume")), "--resume"])
    if checkpoint is None:
        line = f"Stopped. No checkpoint is in {output_dir} yet: start again, with a smaller --save_steps to keep more."
    else:
        step = Path(checkpoint).name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        line = f"Stopped. {checkpoint} keeps the first {step} steps; go on with: {command}"
    print(f"\n{line}", file=sys.stderr)  # below the bar of progress
