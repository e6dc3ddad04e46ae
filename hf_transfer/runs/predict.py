"""Predict rows without labels by a saved model, and write the answers as a table."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Value

from hf_transfer.core.task_loss import MULTI_LABEL, REGRESSION, SINGLE_LABEL, predicted, probabilities
from hf_transfer.data.bundled import load
from hf_transfer.data.checks import check_not_empty
from hf_transfer.data.columns import without_labels
from hf_transfer.data.prepare import check_modality, prepare
from hf_transfer.runs.arguments import ModelArguments
from hf_transfer.runs.models import load_model, load_processor
from hf_transfer.runs.task import find_task
from hf_transfer.tasks import task_named, tasks_with_labels
from hf_transfer.training.trainer import TransferConfig, TransferTrainer

LABELS_BETWEEN = "; "


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
    """Write a csv file: the row's number, its text where it has any, the prediction and how probable it is.

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
    rows = without_labels(rows)
    task = task or find_task(ModelArguments(model=model), lambda: rows)
    if task not in tasks_with_labels():
        raise ValueError(f"`task` should be one of {tasks_with_labels()}, got `{task}`.")
    loaded = load_model(ModelArguments(model=model, task=task), allow_new_weights=False)
    logits = outputs_of(loaded, task, model, rows, text_columns, batch_size, max_length)
    table = answers_of(logits, loaded.config)
    texts = {
        name: list(rows[name])
        for name, feature in rows.features.items()
        if isinstance(feature, Value) and feature.dtype in ("string", "large_string")
    }
    columns = {"row": list(range(len(rows))), **texts, **table}
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return len(rows)


def outputs_of(
    loaded: Any,
    task: str,
    model: str,
    rows: Dataset,
    text_columns: tuple[str, ...],
    batch_size: int,
    max_length: int | None,
) -> torch.Tensor:
    """What the model gives for every row, [N, C]."""
    check_modality(rows, loaded.config)
    processor = load_processor(ModelArguments(model=model, task=task), loaded.config)
    ready = prepare(
        rows, loaded.config, processor, text_columns=text_columns, max_length=max_length, keep_labels=False
    )
    collator = task_named(task).collator(processor, ready, getattr(loaded.config, "pad_token_id", 0))
    with tempfile.TemporaryDirectory() as scratch:
        config = TransferConfig(scratch, per_device_eval_batch_size=batch_size, report_to=[])
        outputs = TransferTrainer(loaded, config, data_collator=collator).predict(ready).predictions
    return torch.from_numpy(np.asarray(outputs, dtype=np.float32))


def answers_of(logits: torch.Tensor, config: Any) -> dict[str, list]:
    """Columns of the table, by name.

    Args:
        logits: [N, C].
        config: of the model: problem type and names of the classes.
    """
    kind = config.problem_type or (REGRESSION if config.num_labels == 1 else SINGLE_LABEL)
    names = [config.id2label[index] for index in range(config.num_labels)]
    answers = predicted(logits, kind)
    if kind == REGRESSION:
        numbers = answers.reshape(len(logits), -1).T.tolist()
        return {"prediction" if len(numbers) == 1 else f"prediction_{n}": column for n, column in enumerate(numbers)}
    shares = probabilities(logits, kind)
    if kind == MULTI_LABEL:
        chosen = [LABELS_BETWEEN.join(np.asarray(names)[row.bool().numpy()]) for row in answers]
        return {"prediction": chosen, **dict(zip(names, shares.T.tolist(), strict=True))}
    best = shares.gather(1, answers.unsqueeze(1)).squeeze(1)
    return {"prediction": [names[index] for index in answers.tolist()], "probability": best.tolist()}
