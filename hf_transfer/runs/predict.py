"""Predict rows without labels by a saved model, and write the answers as a table."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_transfer.data.bundled import load
from hf_transfer.data.checks import check_not_empty
from hf_transfer.data.columns import without_labels
from hf_transfer.data.prepare import check_modality
from hf_transfer.evaluation.answers import answers_of as answers_of
from hf_transfer.hub import atomic_folder
from hf_transfer.runs.arguments import DataArguments, ModelArguments
from hf_transfer.runs.models import load_model, load_processor
from hf_transfer.runs.task import find_evaluation_task
from hf_transfer.tasks import task_named, tasks_with_labels
from hf_transfer.training.trainer import TransferConfig, TransferTrainer


def run_prediction(
    model: str,
    dataset: str,
    *,
    output: Path,
    split: str | None = None,
    task: str | None = None,
    text_columns: tuple[str, ...] = (),
    batch_size: int = 64,
    max_length: int | None = None,
    overwrite: bool = False,
) -> int:
    """Write a csv file: the row\'s number, its text where it has any, the prediction and how probable it is.

    Predicted masks go into a folder of the same name beside it.

    A class has one `probability`; several labels have the probability of each; a regression has its numbers.

    Args:
        model: folder or Hub id of a model with a head for the task.
        dataset: bundled name, Hub id, folder or file; labels, if there are any, are not read.
        output: the csv file.
        split: which split of it; test where it has several.
        task: a classification or regression task; left out, what model and rows say.
        text_columns: which columns hold the text.
        batch_size: rows at a time.
        max_length: cut text after so many tokens.
        overwrite: replace the file.

    Returns:
        The number of rows.

    Raises:
        ValueError: not a model, no such dataset, or another kind of task.
        FileExistsError: the file exists.
    """
    if output.exists() and not overwrite:
        raise FileExistsError(f"`{output}` exists: choose another --output, or replace it with --overwrite.")
    rows = load(dataset, split, usual_split="test")
    check_not_empty(rows, "prediction")
    task = task or find_evaluation_task(ModelArguments(model=model), lambda: without_labels(rows))
    if task not in tasks_with_labels():
        raise ValueError(f"`task` should be one of {tasks_with_labels()}, got `{task}`.")
    pictures = output.with_suffix("")
    if task_named(task).tells_by_pictures and pictures.exists() and not overwrite:
        raise FileExistsError(f"`{pictures}` exists, where pictures of predictions would go: choose another --output.")
    loaded = load_model(ModelArguments(model=model, task=task), allow_new_weights=False)
    arguments = DataArguments(dataset, text_columns=list(text_columns) or None, max_length=max_length)
    rows = without_labels(task_named(task).arranged(without_labels(rows), arguments, f"prediction (`{dataset}`)"))
    ready, outputs = ready_and_outputs(loaded, task, model, rows, text_columns, batch_size, max_length)
    columns = task_named(task).answers(rows, ready, outputs, loaded.config)
    files = task_named(task).files(rows, outputs, loaded.config)
    output.parent.mkdir(parents=True, exist_ok=True)
    if files:
        with atomic_folder(pictures, overwrite=overwrite) as staging:
            for name, picture in files.items():
                picture.save(staging / name)
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return len(rows)


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
    check_modality(rows, loaded.config)
    processor = load_processor(ModelArguments(model=model, task=task), loaded.config)
    ready = task_named(task).prepare(
        rows, loaded.config, processor, text_columns=text_columns, max_length=max_length, keep_labels=False
    )
    collator = task_named(task).collator(processor, ready, getattr(loaded.config, "pad_token_id", 0))
    with tempfile.TemporaryDirectory() as scratch:
        config = TransferConfig(scratch, per_device_eval_batch_size=batch_size, report_to=[])
        return ready, TransferTrainer(loaded, config, data_collator=collator).predict(ready).predictions
