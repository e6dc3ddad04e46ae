"""The data of a lifecycle: training rows, rows to choose by, test rows, a source and unlabelled target rows, written
once.

What chooses (settings, methods, models) reads the validation rows; the test rows are read once, for the report. Both
are held out of the training rows where the plan names none: a fifth of them each, spread evenly over the classes. With
a target there is no test set but of the target's kind, which has to be given. A `source` is what `domain` trains on in
the place of the training rows; its target is that of the plan, or what `labels_per_class` leaves of the training data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from transformers.utils import logging

from hf_transfer.core.task_loss import IGNORED_LABEL, MULTI_LABEL
from hf_transfer.data.bundled import load
from hf_transfer.data.checks import column_values, label_column
from hf_transfer.data.columns import without_labels
from hf_transfer.data.fingerprint import fingerprint
from hf_transfer.data.labels import has_labels
from hf_transfer.data.tagged_words import holds_tagged_words
from hf_transfer.hub import atomic_folder
from hf_transfer.runs.data import DEFAULT_TASK, RunData, load_data
from hf_transfer.runs.lifecycle.outputs import PARTS
from hf_transfer.runs.lifecycle.plan import Plan
from hf_transfer.runs.lifecycle.store import Store
from hf_transfer.runs.saving import HELD_OUT
from hf_transfer.tasks import TASKS, Task, claimed_by, task_named
from hf_transfer.tasks.arguments import DataArguments
from hf_transfer.tasks.time_series_forecasting import TimeSeriesForecasting
from hf_transfer.tasks.token_classification import TokenClassification

logger = logging.get_logger(__name__)

PIECE = "data"
HELD_OUT_SHARE = 0.2
LEAST_ROWS = 2
OF_PARTS = ("id2label", "ignore_index")


def prepare_rows(plan: Plan, store: Store) -> dict[str, Any]:
    """Read the data, hold rows out, and write all of them; or find what was written.

    Returns:
        `folder`, `rows` by role, `names` of the datasets by their folder, `kind` of the labels, `classes`, and
        `fingerprints`, which say what later pieces depend on.

    Raises:
        ValueError: unusable data, or too few rows.
    """
    arguments = plan.data_arguments()
    with PartialState().main_process_first():
        raw, task = read_rows(arguments, plan.training.get("task"), plan.seed)
    arguments = task.settled(arguments, raw.known)
    if task.name in PARTS and plan.combine is not None:
        raise ValueError(f"`combine` draws on models of rows with one label each, and these are of {task.name}.")
    data, column, (named, asked) = plan.data, plan.data.get("label_column"), plan.validation
    if "source" in data and raw.target is None:
        raw = replace(raw, target=raw.rest)
    rows = {"train": raw.train, "target": raw.target, "test": raw.test}
    if "source" in data:
        source = load(data["source"], data.get("source_split"), options=data.get("source_options"))
        source = task.arranged(source, arguments, f"source (`{data['source']}`)")
        rows["source"] = task.read_labels_as(source, raw.kind, "source", column, "the training dataset")
    if named is not None:
        validation = task.arranged(load(named, usual_split="validation"), arguments, f"validation (`{named}`)")
        rows["validation"] = task.read_labels_as(validation, raw.kind, "validation", column)
    depends: dict[str, Any] = {
        "rows": {role: fingerprint(one) for role, one in rows.items() if one is not None},
        "validation_rows": asked,
    }
    depends |= {"seed": plan.seed} if plan.seed else {}
    found = store.find(PIECE, depends)
    if found is not None:
        return found
    held_out_by_task = partial(task.hold_out, arguments=arguments)
    spread = task.name not in PARTS
    if spread:
        raw = replace(raw, test=to_measure_on(raw.test, "test"))
        rows["validation"] = to_measure_on(rows.get("validation"), "validation")
    split = with_held_out(raw, rows.get("validation"), asked, held_out_by_task, plan.seed, spread)
    split |= {"source": rows["source"]} if "source" in rows else {}
    folder = store.folder(PIECE, depends)
    if PartialState().is_main_process:
        with atomic_folder(folder, overwrite=True) as staging:
            for role, one in split.items():
                task.as_given(one, raw.kind).with_format(None).save_to_disk(staging / role)
    PartialState().wait_for_everyone()
    return store.keep(PIECE, depends, facts_of(split, raw, folder, plan, task))


def read_rows(arguments: DataArguments, told: str | None, seed: int = 0) -> tuple[RunData, Task]:
    """As `load_data`, and the task by which labels are read, which says itself whether they are of parts of rows.

    Args:
        arguments: what to read.
        told: the task of the plan's trainings, where it says one.
        seed: of what is drawn.

    Raises:
        ValueError: as `load_data`; or rows of questions and answers.
    """
    if arguments.forecasting is not None or told in PARTS:
        task = task_named(TimeSeriesForecasting.name if arguments.forecasting is not None else told)
        return load_data(arguments, seed=seed, task=task), task
    task = task_named(DEFAULT_TASK)
    try:
        raw = load_data(arguments, seed=seed, task=task)
    except ValueError:
        own = {"config": arguments.dataset_config, "options": arguments.dataset_options}
        found = task_that_labels_parts(load(arguments.dataset, arguments.split, **own))
        if found is None:
            raise
    else:
        found = task_that_labels_parts(raw.train)
    return (raw, task) if found is None else (load_data(arguments, seed=seed, task=found), found)


def task_that_labels_parts(rows: Dataset) -> Task | None:
    """The task of rows of masks, boxes, key points or tags; None for rows with labels of their own.

    Raises:
        ValueError: rows of answers, which have no classes to choose a model by.
    """
    claimed = claimed_by(rows, TASKS.values())
    if claimed is None and holds_tagged_words(rows):
        claimed = TokenClassification.name
    if claimed is not None and claimed not in PARTS:
        raise ValueError(
            f"a plan does not read rows of {claimed}: `hf-transfer adapt`, `compare`, `evaluate` and `predict` do."
        )
    return None if claimed is None else task_named(claimed)


def known_numbers(rows: Dataset) -> np.ndarray:
    """The numbers of the rows that have a label, of rows with labels of their own."""
    labels = column_values(rows, label_column(rows, "training"))
    return np.flatnonzero((labels.reshape(len(labels), -1) != IGNORED_LABEL).all(axis=1))


def to_measure_on(rows: Dataset | None, role: str) -> Dataset | None:
    """The rows that have a label: figures and their errors are of so many.

    Args:
        rows: whose labels were read, if there are any.
        role: what they are for, for messages.

    Raises:
        ValueError: none has one.
    """
    if rows is None or not has_labels(rows):
        return rows
    known = known_numbers(rows)
    if len(known) == len(rows):
        return rows
    if not len(known):
        raise ValueError(f"the {role} rows have no label ({IGNORED_LABEL} in every row): give rows with labels.")
    logger.warning(f"{len(rows) - len(known)} of {len(rows)} {role} rows have no label and are left out.")
    return rows.select(known)


def with_held_out(
    raw: RunData,
    validation: Dataset | None,
    asked: int | None,
    of_task: Callable[..., tuple[Dataset, Dataset, tuple[int, ...]] | None],
    seed: int = 0,
    spread: bool = True,
) -> dict[str, Dataset]:
    """The rows by role, with those that are held out of the training rows.

    Args:
        raw: what was read.
        validation: rows to choose by, where there are any.
        asked: how many of these to hold out; a fifth when left out.
        of_task: `hold_out` of the task, which says None where random rows will do.
        seed: of random rows.
        spread: these evenly over the labels, where rows have one each.
    """

    def without(rows: Dataset, count: int, role: str) -> tuple[Dataset, Dataset]:
        found = of_task(rows, count, role="training")
        among = known_numbers(rows) if spread else None
        return hold_out(rows, count, role, multi, seed, among) if found is None else found[:2]

    train, test = raw.train, raw.test
    multi = not spread or raw.kind.problem_type == MULTI_LABEL
    labelled = len(known_numbers(train)) if spread else len(train)
    share = max(LEAST_ROWS, int(labelled * HELD_OUT_SHARE))
    if test is None and raw.target is None:
        train, test = without(train, share, "test")
    if validation is None and asked != 0:
        train, validation = without(train, asked or share, "validation")
    found = {"train": train, "validation": validation, "test": test}
    found["target"] = None if raw.target is None else without_labels(raw.target)
    return {role: one for role, one in found.items() if one is not None}


def hold_out(
    rows: Dataset, count: int, role: str, multi: bool = False, seed: int = 0, among: np.ndarray | None = None
) -> tuple[Dataset, Dataset]:
    """What is left of the rows, and `count` of them, spread evenly over the labels.

    Rows are ordered by label, at random among those of one label, and every (N / count)-th is taken.

    Args:
        rows: with labels.
        count: how many to hold out.
        role: of those, for the message.
        multi: several labels a row, over which nothing is spread.
        seed: of the order.
        among: the numbers of the rows that may be held out; all when left out.

    Raises:
        ValueError: fewer than two rows would be left.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    order = order if among is None else order[np.isin(order, among)]
    if not 0 < count <= len(order) - LEAST_ROWS:
        labelled = "" if len(order) == len(rows) else " with a label"
        raise ValueError(
            f"{count} {role} rows cannot be held out of {len(order)} training rows{labelled}: give more rows, or "
            f"data: {{{role}: FILE}}."
        )
    if not multi:
        labels = column_values(rows, label_column(rows, "training"))
        if labels.ndim == 1 or labels.shape[1] == 1:  # several numbers a row have no order
            order = order[np.argsort(labels[order].reshape(-1), kind="stable")]
    taken = order[((np.arange(count) + 0.5) * len(order) / count).astype(int)]
    left = np.setdiff1d(np.arange(len(rows)), taken)
    return rows.select(left), rows.select(np.sort(taken))


def facts_of(split: dict[str, Dataset], raw: RunData, folder: Path, plan: Plan, task: Task) -> dict[str, Any]:
    """What later pieces and the report say of the rows."""
    data, kind = plan.data, raw.kind
    tests = data.get("test") or (data.get("target") or data["train"])
    held_out = {"test": raw.test is None, "validation": data.get("validation") is None}
    names = {"train": data["train"], "target": data.get("target"), "test": tests}
    names["validation"] = data.get("validation") or data["train"]
    names |= {"source": data.get("source"), "target": names["target"] or f"{data['train']} without labels"}
    return {
        "folder": str(folder),
        "rows": {role: len(one) for role, one in split.items()},
        "names": {str(folder / role): f"{names[role]}{HELD_OUT if held_out.get(role) else ''}" for role in split},
        "kind": kind.problem_type,
        "task": task.name if task.name in PARTS else None,
        "labels": kind.in_words(),
        "classes": list(kind.class_names) if kind.class_names is not None else None,
        "fingerprints": {role: fingerprint(one) for role, one in split.items()},
    }


def problem_type_of(facts: dict[str, Any]) -> str:
    """What is to be predicted: of every row, or of the parts of rows that a task predicts something of."""
    of_units = None if facts.get("task") is None else task_named(facts["task"]).unit_type
    return of_units or facts["kind"]


def rows_arguments(plan: Plan, facts: dict[str, Any], test: str | None, with_target: bool) -> dict[str, Any]:
    """Arguments of a training that read the written rows.

    Args:
        plan: whose columns and lengths count.
        facts: of `prepare_rows`.
        test: role of the rows to measure on; None for none.
        with_target: for domain adaptation.
    """
    folder, data = Path(facts["folder"]), plan.data_arguments()
    labelled = labelled_role(facts, with_target)
    arguments: dict[str, Any] = {"dataset": str(folder / labelled), "dataset_names": facts["names"]}
    of_parts = facts.get("task")
    arguments |= {"problem_type": facts["kind"]} if of_parts is None else {"task": of_parts}
    for name in ("text_columns", "series_columns", "max_length", "forecasting", *(OF_PARTS if of_parts else ())):
        if getattr(data, name) is not None:
            arguments[name] = getattr(data, name)
    if test is not None:
        arguments["test_dataset"] = str(folder / test)
    return arguments | ({"target_dataset": str(folder / "target")} if with_target else {})


def labelled_role(facts: dict[str, Any], with_target: bool) -> str:
    """Which rows a training reads labels of: the source of a domain adaptation, where there is one of its own."""
    return "source" if with_target and "source" in facts["rows"] else "train"
