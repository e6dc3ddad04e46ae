"""Evaluate a saved model on labelled rows."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from datasets import Dataset
from transformers import PreTrainedConfig

from hf_transfer.core.task_loss import MULTI_LABEL, SINGLE_LABEL
from hf_transfer.data.bundled import load
from hf_transfer.data.checks import check_not_empty
from hf_transfer.data.class_names import named_label_column
from hf_transfer.data.label_columns import LabelColumn, label_names
from hf_transfer.data.labels import has_labels, read_labels, with_one_label_column
from hf_transfer.data.prepare import check_modality, prepare
from hf_transfer.data.text_length import text_positions
from hf_transfer.evaluation.few_shot import FewShotSettings, evaluate_few_shot
from hf_transfer.evaluation.retrieval import evaluate_retrieval
from hf_transfer.runs.arguments import DataArguments, ModelArguments
from hf_transfer.runs.data import DEFAULT_TASK, check_label_columns, some_rows
from hf_transfer.runs.evaluate_pairs import evaluate_pairs
from hf_transfer.runs.models import load_model, load_processor
from hf_transfer.runs.report import Remembering
from hf_transfer.runs.results import Measured
from hf_transfer.runs.task import configuration_of, find_evaluation_task, remembered_texts, told_or_remembered
from hf_transfer.tasks import Task, task_named
from hf_transfer.tasks.text_generation import TEXT_BLOCK_SIZE, TextGeneration, check_next_token
from hf_transfer.tasks.time_series_forecasting import TimeSeriesForecasting
from hf_transfer.tasks.zero_shot_image_classification import ZeroShotImageClassification
from hf_transfer.training.family_trainers import PretrainingTrainer
from hf_transfer.training.trainer import TransferConfig, TransferTrainer


def run_evaluation(
    model: str,
    dataset: str,
    *,
    split: str | None = None,
    task: str | None = None,
    batch_size: int = 64,
    max_length: int | None = None,
    block_size: int | None = None,
    few_shot: Mapping[str, Any] | None = None,
    retrieval: bool = False,
    label_column: LabelColumn = None,
    text_columns: Sequence[str] = (),
    max_samples: int | None = None,
    seed: int = 0,
    prompts: Sequence[str] = (),
    converters: Mapping[str, Any] | None = None,
    forecasting: Mapping[str, Any] | None = None,
) -> Measured:
    """Measure a model on rows.

    Loss and the metrics of its problem type (`hf_transfer.core.task_metrics`) of a saved classifier or regression;
    accuracy of few-shot classification by a model's features; loss and perplexity of a causal language model
    (text-generation); or recall of captions and zero-shot accuracy of a model with two towers
    (zero-shot-image-classification).

    Args:
        model: folder or Hub id of a model with a head for the task.
        dataset: bundled name, Hub id, folder or file of rows, labelled for a classifier.
        split: which split of it; test where it has several.
        task: a key of `hf_transfer.tasks.TASKS`; left out, what model and rows say.
        batch_size: rows at a time.
        max_length: cut text after so many tokens.
        block_size: for text-generation, see `language_blocks`; left out, as in training, or as many tokens as the
            model has places for.
        few_shot: keywords of `FewShotSettings`: accuracy over episodes with its 95 % interval; the classes of the
            rows need not be the model's, whose head is not used.
        retrieval: mean average precision and ranks of rows of one class that find each other by their features.
        label_column: which column holds the labels, where it is not label, labels or label_ids; or several of 0 and 1,
            which are found by themselves where they are called as the labels of the model.
        text_columns: which one or two columns hold the text; those of the training where left out and there.
        max_samples: measure on at most so many random rows.
        seed: of these rows.
        prompts: for zero-shot-image-classification, texts with a `{}` for the name of a class.
        converters: changes of the model by name with their keywords, as {"tent": {}}, which adapts to the rows.
        forecasting: how windows are cut of a table of steps; as the model was trained when left out.

    Raises:
        ValueError: not a model, no such dataset, no labels, or labels outside the model's classes.
    """
    measure = _measure_of_features(few_shot, retrieval)
    rows = load(dataset, split, usual_split="test")
    check_not_empty(rows, "evaluation")
    task = task or find_evaluation_task(ModelArguments(model=model), lambda: rows)
    if measure is not None:
        task = task_named(task).adapted_as or task
    _check_given(
        task,
        block_size=block_size,
        max_length=max_length,
        prompts=prompts,
        few_shot=few_shot is not None,
        retrieval=retrieval,
        label_column=label_column,
        forecasting=forecasting,
    )
    arguments = ModelArguments(model=model, task=task, converters=None if converters is None else dict(converters))
    text_columns = tuple(text_columns) or remembered_texts(model, rows, label_names(label_column))
    reading = {"max_length": max_length, "text_columns": text_columns}
    if task == TextGeneration.name:
        rows = some_rows(rows, max_samples, seed)
        return Measured(_perplexity(arguments, rows, batch_size, block_size, text_columns), task, len(rows))
    if task == ZeroShotImageClassification.name:
        rows = rows if label_column is None else with_one_label_column(rows, "evaluation", label_column)[0]
        rows = some_rows(rows, max_samples, seed)
        return Measured(evaluate_pairs(arguments, rows, batch_size, reading, prompts), task, len(rows))
    reader = task_named(task)
    label_column = label_column or columns_of_labels(rows, model, reader)
    columns = DataArguments(dataset, label_column=label_column, text_columns=list(text_columns) or None)
    check_label_columns(columns, reader)
    columns = replace(columns, **told_or_remembered(arguments, reader, {"forecasting": forecasting}))
    rows = reader.arranged(rows, columns, f"evaluation (`{dataset}`)")
    rows = with_one_label_column(rows, "evaluation", reader.label_column(columns))[0]
    rows = some_rows(rows, max_samples, seed)
    if measure is not None:
        return Measured(_by_features(arguments, rows, batch_size, reading, measure), task, len(rows))
    loaded = load_model(arguments, allow_new_weights=False)
    processor = load_processor(arguments, loaded.config)
    check_modality(rows, loaded.config, processor)
    rows = numbered_as_model(rows, loaded.config, reader)
    ready = reader.prepare(rows, loaded.config, processor, **reading)
    collator = reader.collator(processor, ready, getattr(loaded.config, "pad_token_id", 0))
    measured = Remembering(reader.metrics_of_rows(loaded.config, rows, ready))
    with tempfile.TemporaryDirectory() as scratch:
        config = TransferConfig(scratch, per_device_eval_batch_size=batch_size, report_to=[])
        config.include_for_metrics = ["inputs"] if reader.metrics_read_inputs else []
        trainer = TransferTrainer(
            loaded,
            config,
            eval_dataset=ready,
            compute_metrics=measured,
            preprocess_logits_for_metrics=reader.reduced,
            data_collator=collator,
        )
        trainer.check_dataset(trainer.transfer_model, ready)
        metrics = trainer.evaluate()
    config = trainer.transfer_model.config
    names = ("loss", *reader.metric_names(config))
    named = measured_figures(metrics, names, len(rows))
    return Measured(named, task, len(rows), measured.class_figures(config), measured.confusion(config))


def measured_figures(metrics: Mapping[str, float], names: Sequence[str], rows: int) -> dict[str, float]:
    """The figures of an evaluation by name. Raises ValueError where there is none but the loss.

    Args:
        metrics: as the Trainer names them.
        names: of the loss and of the task's metrics.
        rows: how many were evaluated.
    """
    named = {name: metrics[f"eval_{name}"] for name in names if f"eval_{name}" in metrics}
    if named.keys() <= {"loss"} and len(names) > 1:
        raise ValueError(
            f"nothing of the {rows} evaluation rows can be measured by {list(names[1:])}: no part of them has a "
            "label. Check the labels, or take other rows."
        )
    return named


def _measure_of_features(few_shot: Mapping[str, Any] | None, retrieval: bool) -> Callable | None:
    """What is measured of the features of rows, if anything. Raises ValueError where both are asked for."""
    if few_shot is not None and retrieval:
        raise ValueError("`few_shot` and `retrieval` both read features in place of the head: give one of them.")
    if few_shot is not None:
        return partial(evaluate_few_shot, settings=FewShotSettings.of(few_shot))
    return evaluate_retrieval if retrieval else None


def _check_given(task: str, **options: Any) -> None:
    """Raises ValueError for an option that is given and that a task does not read."""
    given = [name for name, value in options.items() if value]
    if "prompts" in given and task != ZeroShotImageClassification.name:
        raise ValueError(f"`prompts` are for {ZeroShotImageClassification.name}, and this task is {task}.")
    if "block_size" in given and task != TextGeneration.name:
        raise ValueError(f"`block_size` cuts text for text-generation, and this task is {task}: leave it out.")
    if "max_length" in given and task == TextGeneration.name:
        raise ValueError("`max_length` is not read for text-generation, whose texts are joined: give `block_size`.")
    unread = sorted({"few_shot", "retrieval", "label_column"} & set(given))
    if unread and task == TextGeneration.name:
        raise ValueError(f"`{unread[0]}` is about classes of rows, and text-generation has none: leave it out.")
    if "forecasting" in given and task != TimeSeriesForecasting.name:
        raise ValueError(f"`forecasting` is for {TimeSeriesForecasting.name}, and this task is {task}: leave it out.")


def _by_features(
    arguments: ModelArguments, rows: Dataset, batch_size: int, reading: Mapping[str, Any], measure: Callable
) -> dict[str, Any]:
    """What `measure` finds of a trainer and the rows, by the features of a model that may have no head yet."""
    loaded = load_model(arguments)
    reader = task_named(arguments.task)
    reader.ready_for_features(loaded.config)
    processor = load_processor(arguments, loaded.config)
    rows, kind = read_labels(rows, "evaluation")
    if kind.problem_type != SINGLE_LABEL:
        raise ValueError(f"rows are compared by their class, and these have labels of {kind.problem_type}.")
    ready = reader.prepare(rows, loaded.config, processor, **reading)
    collator = reader.collator(processor, ready, getattr(loaded.config, "pad_token_id", 0))
    with tempfile.TemporaryDirectory() as scratch:
        config = TransferConfig(scratch, per_device_eval_batch_size=batch_size, report_to=[])
        return measure(TransferTrainer(loaded, config, data_collator=collator), ready)


def _perplexity(
    arguments: ModelArguments, rows: Dataset, batch_size: int, block_size: int | None, text_columns: Sequence[str]
) -> dict[str, float]:
    """Mean loss of a token of the joined text, and its exponential."""
    loaded = load_model(arguments, allow_new_weights=False)
    check_next_token(loaded)
    processor = load_processor(arguments, loaded.config)
    block_size = block_size or getattr(loaded.config, TEXT_BLOCK_SIZE, None) or text_positions(loaded.config)
    if block_size is None:
        raise ValueError("the model's configuration names no longest text: give `block_size`.")
    reading = {"block_size": block_size, "keep_labels": False, "text_columns": text_columns}
    ready = prepare(rows, loaded.config, processor, **reading)
    with tempfile.TemporaryDirectory() as scratch:
        config = TransferConfig(scratch, per_device_eval_batch_size=batch_size, report_to=[])
        collator = task_named(arguments.task).collator(processor, ready)
        loss = PretrainingTrainer(loaded, config, eval_dataset=ready, data_collator=collator).evaluate()["eval_loss"]
    return {"loss": loss, "perplexity": math.exp(loss)}


def columns_of_labels(rows: Dataset, model: str, task: Task) -> list[str] | None:
    """Of rows without a label column the columns that are called as the labels of a model which may hold at once."""
    if has_labels(rows):
        return None
    config = configuration_of(ModelArguments(model=model))
    if getattr(config, "problem_type", None) != MULTI_LABEL:
        return None
    names = [str(config.id2label[place]) for place in range(config.num_labels)]
    is_read = task.label_column(DataArguments("", label_column=names)) == names
    return names if is_read and set(names) <= set(rows.column_names) else None


def numbered_as_model(rows: Dataset, config: PreTrainedConfig, task: Task | None = None) -> Dataset:
    """The rows with their labels numbered as the model's, by name where both have names.

    Args:
        rows: with a label column.
        config: of the model.
        task: whose rows they are; one with a label a row when left out.

    Raises:
        ValueError: a class that the model does not know, another number of them, or labels of another problem type.
    """
    task = task or task_named(DEFAULT_TASK)
    kind, column = task.model_labels(config, rows), named_label_column(rows)
    if kind.problem_type == SINGLE_LABEL and kind.class_names is None and column is not None:
        classes = read_labels(rows, "evaluation")[1].class_names
        if len(classes) != config.num_labels:
            raise ValueError(f"the evaluation dataset has {len(classes)} classes and the model {config.num_labels}.")
        if classes != tuple(str(index) for index in range(len(classes))):
            raise ValueError(
                f"the model was saved without the names of its classes, so which of its outputs is `{classes[0]}` is "
                "not known, and a set of the same size need not be the same set. Write the names in the order of its "
                "outputs into the model (`id2label` in config.json, or adapt it again), or give labels as the numbers "
                "of outputs."
            )
    return task.read_labels_as(rows, kind, "evaluation")
