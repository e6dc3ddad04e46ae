"""Predict rows without labels by a saved model, and write the answers as a table."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_transfer.core.task_loss import SINGLE_LABEL, probabilities
from hf_transfer.data.bundled import load
from hf_transfer.data.checks import LABEL_COLUMNS, check_not_empty
from hf_transfer.data.columns import without_labels
from hf_transfer.data.label_columns import LabelColumn, label_names
from hf_transfer.data.prepare import check_modality
from hf_transfer.evaluation.answers import answers_of as answers_of
from hf_transfer.hub import atomic_folder
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.modeling.class_texts import has_class_names
from hf_transfer.runs.arguments import DataArguments, ModelArguments
from hf_transfer.runs.data import some_rows
from hf_transfer.runs.models import load_model, load_processor
from hf_transfer.runs.task import find_evaluation_task, remembered_texts, told_or_remembered
from hf_transfer.tasks import TASKS, task_named, tasks_with_labels
from hf_transfer.tasks.prompted_image_classification import PromptedImageClassification
from hf_transfer.training.trainer import TransferConfig, TransferTrainer


@dataclass(frozen=True)
class Predictions:
    """What a model says of rows.

    Args:
        columns: of the table, by name.
        files: pictures by file name, where a table cannot tell.
        rows: how many.
    """

    columns: dict[str, list]
    files: dict[str, Any]
    rows: int


def run_prediction(model: str, dataset: str, *, output: Path, overwrite: bool = False, **options: Any) -> int:
    """Write the table of `predict_rows` as a file of the kind that its ending says, whole or not at all.

    Predicted masks go into a folder of the same name beside it.

    Args:
        model: folder or Hub id of a model with a head for the task.
        dataset: bundled name, Hub id, folder or file.
        output: the file: .csv, .json (lines), .jsonl or .parquet.
        overwrite: replace the file.
        options: keywords of `predict_rows`.

    Returns:
        The number of rows.

    Raises:
        ValueError: as `predict_rows`; or another kind of file.
        FileExistsError: the file exists.
    """
    check_output(output, overwrite)
    found = predict_rows(model, dataset, pictures=None if overwrite else output.with_suffix(""), **options)
    save_predictions(found, output, overwrite)
    return found.rows


def check_output(output: Path, overwrite: bool) -> None:
    """Raises ValueError or FileExistsError where `run_prediction` could not write the file."""
    if output.suffix not in WRITERS:
        raise ValueError(f"`output` should end in one of {sorted(WRITERS)}, got `{output}`.")
    if output.exists() and not overwrite:
        raise FileExistsError(f"`{output}` exists: choose another --output, or replace it with --overwrite.")


def save_predictions(found: Predictions, output: Path, overwrite: bool) -> None:
    """Write the table as the ending of the file says, and pictures beside it; an old file stays until all is whole."""
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        WRITERS[output.suffix](found.columns, staging)
        if found.files:
            with atomic_folder(output.with_suffix(""), overwrite=overwrite) as folder:
                for name, picture in found.files.items():
                    picture.save(folder / name)
        staging.replace(output)
    finally:
        staging.unlink(missing_ok=True)


def _write_csv(columns: dict[str, list], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


WRITERS: dict[str, Callable[[dict[str, list], Path], Any]] = {
    ".csv": _write_csv,
    ".json": lambda columns, path: Dataset.from_dict(columns).to_json(path, force_ascii=False),
    ".jsonl": lambda columns, path: Dataset.from_dict(columns).to_json(path, force_ascii=False),
    ".parquet": lambda columns, path: Dataset.from_dict(columns).to_parquet(path),
}
"""Ending of a file -> what writes columns into it."""


def predict_rows(
    model: str,
    dataset: str,
    *,
    split: str | None = None,
    task: str | None = None,
    text_columns: tuple[str, ...] = (),
    label_column: LabelColumn = None,
    max_samples: int | None = None,
    seed: int = 0,
    all_probabilities: bool = False,
    pictures: Path | None = None,
    batch_size: int = 64,
    max_length: int | None = None,
    forecasting: Mapping[str, Any] | None = None,
    classes: Sequence[str] = (),
) -> Predictions:
    """A table of the row's number, its text where it has any, the prediction and how probable it is; and pictures.

    A class has one `probability`; several labels have the probability of each; a regression has its numbers.

    Args:
        model: folder or Hub id of a model with a head for the task.
        dataset: bundled name, Hub id, folder or file; labels, if there are any, are not read.
        split: which split of it; test where it has several.
        task: a classification or regression task; left out, what model and rows say.
        text_columns: which columns hold the text; those of the training where left out and there.
        label_column: a further column that holds labels, and so no text, or several.
        max_samples: at most so many random rows.
        seed: of these rows.
        all_probabilities: of every class, beside that of the predicted one.
        pictures: folder for predicted pictures, which may not be there yet.
        batch_size: rows at a time.
        max_length: cut text after so many tokens.
        forecasting: how windows are cut of a table of steps, whose last one is read of every series; as the model was
            trained when left out.
        classes: names of classes that a model with an image and a text tower has not been trained to tell.

    Raises:
        ValueError: not a model, no such dataset or column, another kind of task, or classes without names.
        FileExistsError: the task has pictures to write, and their folder exists.
    """
    rows = load(dataset, split, usual_split="test")
    check_not_empty(rows, "prediction")
    rows = without_column(rows, label_column)
    task = task or find_evaluation_task(ModelArguments(model=model), lambda: without_labels(rows))
    task = (TASKS[task].adapted_as if task in TASKS else None) or task
    if task not in tasks_with_labels():
        raise ValueError(f"`task` should be one of {tasks_with_labels()}, got `{task}`.")
    if task_named(task).tells_by_pictures and pictures is not None and pictures.exists():
        raise FileExistsError(f"`{pictures}` exists, where pictures of predictions would go: choose another --output.")
    if classes and (task != PromptedImageClassification.name or len(set(classes)) < 2):
        raise ValueError(
            f"`classes` are two or more names for {PromptedImageClassification.name}, got {list(classes)} for {task}."
        )
    loaded = load_model(
        ModelArguments(model=model, task=task), list(dict.fromkeys(classes)) or None, allow_new_weights=False
    )
    if task == PromptedImageClassification.name and not has_class_names(unwrap_peft(loaded).config):
        raise ValueError(f"`{model}` was not trained to tell classes: name them, as `--class cat --class dog`.")
    text_columns = tuple(text_columns) or remembered_texts(model, rows)
    arguments = DataArguments(dataset, text_columns=list(text_columns) or None, max_length=max_length)
    reader = task_named(task)
    own = told_or_remembered(ModelArguments(model=model, task=task), reader, {"forecasting": forecasting})
    arguments = replace(arguments, **own)
    rows = without_labels(reader.arranged(without_labels(rows), arguments, f"prediction (`{dataset}`)"))
    numbers = list(some_rows(Dataset.from_dict({"row": range(len(rows))}), max_samples, seed)["row"])
    rows = some_rows(rows, max_samples, seed)
    ready, outputs = ready_and_outputs(loaded, task, model, rows, text_columns, batch_size, max_length)
    columns = reader.answers(rows, ready, outputs, loaded.config)
    if all_probabilities:
        columns |= probabilities_of_classes(outputs, loaded.config, len(columns["row"]))
    columns["row"] = [numbers[place] for place in columns["row"]]
    pictures = reader.files(rows, outputs, loaded.config)
    files = {f"{numbers[int(Path(name).stem)]}{Path(name).suffix}": picture for name, picture in pictures.items()}
    return Predictions(columns, files, len(rows))


def without_column(rows: Dataset, label_column: LabelColumn) -> Dataset:
    """The rows without a column of labels that has another name than usual, or without several.

    Raises:
        ValueError: they have no such column, and could not have lost it as one of the usual names.
    """
    names = label_names(label_column)
    missing = [name for name in names if name not in (*rows.column_names, *LABEL_COLUMNS)]
    if missing:
        raise ValueError(f"`label_column` names `{missing[0]}`, and the rows have {rows.column_names}.")
    return rows.remove_columns([name for name in names if name in rows.column_names])


def probabilities_of_classes(outputs: Any, config: Any, lines: int) -> dict[str, list]:
    """A column `probability of NAME` for every class, of outputs [N, C] of rows with one class each.

    Raises:
        ValueError: a line of the table is no row, or a row has no single class.
    """
    logits = torch.from_numpy(np.asarray(outputs, dtype=np.float32))
    if logits.shape != (lines, config.num_labels) or config.problem_type not in (None, SINGLE_LABEL):
        raise ValueError(
            "`all_probabilities` is for a model that gives a row one of several classes; the table of this one has "
            "what it gives without it."
        )
    shares = probabilities(logits, SINGLE_LABEL).T.tolist()
    return {f"probability of {config.id2label[place]}": share for place, share in enumerate(shares)}


def outputs_of(*arguments: Any) -> torch.Tensor:
    """What the model gives for every row, [N, C]; arguments as `ready_and_outputs`."""
    return torch.from_numpy(np.asarray(ready_and_outputs(*arguments)[1], dtype=np.float32))


def ready_and_outputs(
    loaded: Any,
    task: str,
    model: str,
    rows: Dataset,
    text_columns: tuple[str, ...],
    batch_size: int,
    max_length: int | None,
) -> tuple[Dataset, Any]:
    """The rows as inputs of the model, and what it gives for them as the Trainer joins it.

    Args:
        loaded: the model.
        task: whose rows these are.
        model: its folder, for the processor.
        rows: as the task arranged them, without labels.
        text_columns: which columns hold the text.
        batch_size: rows at a time.
        max_length: cut text after so many tokens.
    """
    processor = load_processor(ModelArguments(model=model, task=task), loaded.config)
    check_modality(rows, loaded.config, processor)
    ready = task_named(task).prepare(
        rows, loaded.config, processor, text_columns=text_columns, max_length=max_length, keep_labels=False
    )
    collator = task_named(task).collator(processor, ready, getattr(loaded.config, "pad_token_id", 0))
    with tempfile.TemporaryDirectory() as scratch:
        config = TransferConfig(scratch, per_device_eval_batch_size=batch_size, report_to=[])
        return ready, TransferTrainer(loaded, config, data_collator=collator).predict(ready).predictions
