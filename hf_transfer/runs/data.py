"""The data sets of a run: train, target and test, as model inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedConfig
from transformers.utils import logging

from hf_transfer.core.label_sets import LabelSet
from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.data.bundled import load, load_splits
from hf_transfer.data.checks import LABEL_COLUMNS, check_not_empty
from hf_transfer.data.columns import without_labels
from hf_transfer.data.label_columns import LabelColumn
from hf_transfer.data.label_sets import with_class_numbers, without_known_labels
from hf_transfer.data.labels import (
    LabelKind,
    are_hidden,
    has_labels,
    read_labels,
    with_one_label_column,
)
from hf_transfer.data.prepare import prepare
from hf_transfer.data.prepared_streams import PreparedStream, prepare_stream
from hf_transfer.data.splits import scarce_split
from hf_transfer.data.text_collator import TextCollator
from hf_transfer.runs.arguments import DataArguments
from hf_transfer.tasks import TASKS, Task, claimed_by, task_named

logger = logging.get_logger(__name__)

TEST_SPLIT = "test"
DEFAULT_TASK = "text-classification"
"""Its rows have one label each, as those of images and series."""
ROW = "_row_of_the_dataset"


@dataclass(frozen=True)
class RunData:
    """Raw datasets of a run; `target` and `test` may be missing."""

    train: Dataset | PreparedStream
    target: Dataset | PreparedStream | None
    test: Dataset | None
    held_out: tuple[int, ...] = ()
    """Where the test rows were held out of the target or the training data: their numbers in it."""

    labels: LabelKind | None = None
    """What the training labels are; read from `train` when left out."""

    rest: Dataset | None = None
    """What `labels_per_class` leaves of the training data, beside the test rows."""

    text_columns: tuple[str, ...] = ()
    """The text columns of the training rows, which other rows may have more of."""

    @property
    def known(self) -> Dataset:
        """The training rows; of a stream the first ones."""
        return first_of(self.train)

    @property
    def known_target(self) -> Dataset | None:
        """Likewise of the target."""
        return None if self.target is None else first_of(self.target)

    @property
    def kind(self) -> LabelKind:
        """What the training labels are.

        Raises:
            ValueError: no label column, labels of no known form, or fewer than two classes.
        """
        kind = self.labels or read_labels(self.known, "training")[1]
        if kind.problem_type == SINGLE_LABEL and kind.outputs < 2:
            raise ValueError(
                "the labels of the training dataset should number at least two classes from 0 on, with "
                f"{IGNORED_LABEL} for no label; it holds {list(kind.class_names or ())}."
            )
        return kind

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes, or of the labels that may hold at once, if they have any. Raises as `kind`."""
        names = self.kind.class_names
        return None if names is None else list(names)

    @property
    def outputs(self) -> int | None:
        """How many numbers a row's label is where these have no names; None for classes. Raises as `kind`."""
        return self.kind.outputs if self.kind.class_names is None else None

    def with_label_sets(self, sets: Mapping[str, LabelSet]) -> RunData:
        """The same with numbers for the classes of further label columns; those of a target are not read.

        Raises:
            ValueError: a column is missing, or its labels are none of its set.
        """
        if not sets or not isinstance(self.train, Dataset):  # a trainer refuses streams
            return self
        train = with_class_numbers(self.train, sets)
        target = None if self.target is None else without_known_labels(first_of(self.target), sets, train)
        return replace(self, train=train, target=target)

    def _texts_in(self, rows: Dataset | PreparedStream | None) -> tuple[str, ...]:
        """The text columns of the training rows, where these rows have them."""
        is_there = isinstance(rows, Dataset) and set(self.text_columns) <= set(rows.column_names)
        return self.text_columns if is_there else ()

    def prepared(
        self,
        config: PreTrainedConfig,
        processor: Any,
        arguments: DataArguments,
        keep_labels: bool = True,
        collator: TextCollator | None = None,
        reader: Callable[..., Dataset] = prepare,
        keep_columns: Collection[str] = (),
    ) -> RunData:
        """The same datasets as inputs of a model; arguments as `prepare` takes them.

        Args:
            reader: `prepare`, or that of the run's task.
            keep_columns: beside what the model reads.
        """
        texts = arguments.text_columns or ()
        keywords = {
            "max_length": arguments.max_length,
            "block_size": arguments.block_size,
            "keep_labels": keep_labels,
            "collator": collator,
            "keep_columns": tuple(keep_columns),
        }
        return RunData(
            *(
                None if d is None else _prepared(d, reader, config, processor, text_columns=names, **keywords)
                for d, names in (
                    (self.train, texts),
                    (self.target, texts or self._texts_in(self.target)),
                    (self.test, texts or self._texts_in(self.test)),
                )
            ),
            held_out=self.held_out,
            labels=self.labels,
        )


def first_of(rows: Dataset | PreparedStream) -> Dataset:
    """All rows of a data set, or the first ones of a stream."""
    return rows.first if isinstance(rows, PreparedStream) else rows


def _prepared(
    rows: Dataset | PreparedStream, reader: Callable[..., Dataset], *args: Any, **keywords: Any
) -> Dataset | PreparedStream:
    return (prepare_stream if isinstance(rows, PreparedStream) else reader)(rows, *args, **keywords)


def load_data(
    arguments: DataArguments,
    seed: int = 0,
    label_spaces: Collection[str] = (),
    reads_labels: bool = True,
    task: Task | None = None,
) -> RunData:
    """Train, target and test as the arguments say, their labels as `read_labels` reads them.

    The test set is `test_dataset` (or the split `test_split` of the dataset) if given, else `test_rows` held out of
    the target (or of the dataset, when there is no target); with neither, the split `test` that the target (or the
    dataset) has. `labels_per_class` keeps a few training rows a class, `max_samples` a part of training and target.

    Args:
        arguments: what to read.
        seed: of what is drawn.
        label_spaces: of the run's objectives, see `check_label_spaces`.
        reads_labels: False for pre-training, which leaves label columns as they are.
        task: of the run, which says what its rows and their labels look like; rows with one label each when left out.

    Raises:
        ValueError: a dataset cannot be loaded, is empty, or is too small for what is asked of it, its labels cannot be
            read, or the target has other classes than the source.
    """
    own = {"config": arguments.dataset_config, "options": arguments.dataset_options}
    of_target = {"options": arguments.target_options}
    task = task or task_named(DEFAULT_TASK)
    check_label_columns(arguments, task)
    train = load(arguments.dataset, arguments.split, **own)
    check_not_empty(train, "training")
    train = task.arranged(train, arguments, f"training (`{arguments.dataset}`)")
    arguments = task.settled(arguments, train)
    label_column, kind, columns = task.label_column(arguments), None, train.column_names
    if reads_labels and label_column is None and not has_labels(train):
        _check_parts(train, task)
    if reads_labels and (label_column is not None or has_labels(train)):  # one that is asked for and missing is told
        train, kind = task.read_labels(train, "training", arguments)
        logger.warning(f"`{arguments.dataset}`: {len(train)} rows, {kind.in_words()}.")
    target = None
    if arguments.target_dataset:
        target = load(arguments.target_dataset, arguments.target_split, **of_target)
        target = task.arranged(target, arguments, f"target (`{arguments.target_dataset}`)")
        if arguments.test_rows:
            check_same_column(target, "target", label_column, columns)
        if has_labels(target, label_column):
            target = with_one_label_column(target, "target", label_column)[0]
        task.check_domains(train, target, kind, label_spaces)
    held_out: tuple[int, ...] = ()
    test = _named_test(arguments, own, of_target, task)
    if test is None and arguments.test_rows is None:
        test = _test_split(arguments, own, of_target, task)
    if test is not None:
        check_same_column(test, "test", label_column, columns)
    if test is None and arguments.test_rows and target is not None:
        target, test, held_out = _held_out(target, arguments, seed, task, "target")
    column = label_column if test is not None and has_labels(test, label_column) else None
    if test is not None and kind is not None and has_labels(test, column):
        test = task.read_labels_as(test, kind, "test", column, "the training dataset")
    # labels of what follows were read with those of the training rows
    if test is None and arguments.test_rows and arguments.labels_per_class is None:
        train, test, held_out = _held_out(train, arguments, seed, task, "training")
    rest = None
    if arguments.labels_per_class is not None:
        check_has_classes(kind)
        rows = arguments.test_rows if test is None and arguments.test_rows else 0
        split = scarce_split(train.add_column(ROW, list(range(len(train)))), arguments.labels_per_class, rows, seed)
        held_out = tuple(split["test"][ROW]) if rows else held_out
        split = split.remove_columns(ROW)
        train, test, rest = split["train"], split["test"] if rows else test, split["unlabelled"]
    if target is not None and task.labels_parts_of_images:
        target = without_labels(target)  # nor are its files read
    train, target = (some_rows(rows, arguments.max_samples, seed) for rows in (train, target))
    return RunData(train, target, test, held_out, kind, rest, tuple(arguments.text_columns or ()))


def check_same_column(rows: Dataset, role: str, column: LabelColumn, others: Collection[str]) -> None:
    """Raises ValueError for rows without the label column that was asked for, which would be read by another one.

    Args:
        rows: of a test or target.
        role: what they are for, for the message.
        column: the one that was asked for, or several.
        others: columns of the training rows, among which those of other labels are.
    """
    misleading = [name for name in LABEL_COLUMNS if name in rows.column_names and name in others]
    if column is not None and not has_labels(rows, column) and misleading:
        raise ValueError(
            f"the {role} dataset has no label column `{column}`, and its column `{misleading[0]}` is another "
            "one of the training rows: name the labels alike, or leave that column out."
        )


def check_label_columns(arguments: DataArguments, task: Task) -> None:
    """Raises ValueError for several label columns, where a task reads its labels from one."""
    several = arguments.label_column is not None and not isinstance(arguments.label_column, str)
    if several and task.label_column(arguments) != arguments.label_column:
        raise ValueError(
            f"`label_column` names {list(arguments.label_column)}: {task.name} reads its labels from one column."
        )


def check_has_classes(kind: LabelKind | None) -> None:
    """Raises ValueError where rows have no single class each, of which a few could be drawn."""
    if kind is not None and kind.problem_type != SINGLE_LABEL:
        raise ValueError(
            f"`labels_per_class` draws rows of each class, and these labels are {kind.problem_type}: leave it out; "
            "`max_samples` trains on fewer rows."
        )


def _check_parts(rows: Dataset, task: Task) -> None:
    """Raises ValueError for rows without labels of their own that have labels of parts of their pictures."""
    others = (other for other in TASKS.values() if other.labels_parts_of_images and task.reads == other.reads)
    found = claimed_by(rows, (other for other in others if other.name != task.name))
    if found is not None:
        raise ValueError(
            f"the training rows have no class each and are labelled for {found} ({rows.column_names}), and this run's "
            f"task is {task.name}: give `task: {found}` (`--task {found}`)."
        )


def _named_test(
    arguments: DataArguments, own: dict[str, Any], of_target: dict[str, Any], task: Task
) -> Dataset | None:
    """The test set that the arguments name."""
    if not (arguments.test_dataset or arguments.test_split):
        return None
    name = arguments.test_dataset or arguments.dataset
    keywords = own if name == arguments.dataset else of_target if name == arguments.target_dataset else {}
    rows = load(name, arguments.test_split, usual_split="test", **keywords)
    check_not_empty(rows, "test")
    return task.arranged(rows, arguments, f"test (`{name}`)")


def _test_split(
    arguments: DataArguments, own: dict[str, Any], of_target: dict[str, Any], task: Task
) -> Dataset | None:
    """The split `test` of the target or else of the dataset, where it is there, is not trained on and has labels."""
    name, used, keywords = arguments.dataset, arguments.split, own
    if arguments.target_dataset:
        name, used, keywords = arguments.target_dataset, arguments.target_split, of_target
    splits = load_splits(name, **keywords)
    if TEST_SPLIT not in splits or len(splits) == 1 or used == TEST_SPLIT:
        return None
    test = splits[TEST_SPLIT]
    test = test if len(test) == 0 else task.arranged(test, arguments, f"test (`{name}`)")
    column = task.label_column(arguments)
    if len(test) == 0 or not has_labels(test, column) or are_hidden(test, column):
        logger.warning(f"the split `{TEST_SPLIT}` of `{name}` has no labels and is not evaluated on.")
        return None
    logger.warning(f"evaluating on the {len(test)} rows of the split `{TEST_SPLIT}` of `{name}`.")
    return test


def some_rows(rows: Dataset | None, most: int | None, seed: int) -> Dataset | None:
    """At most so many random rows, in their order.

    Args:
        rows: to draw from, if any.
        most: how many; None for all.
        seed: of the draw.
    """
    if rows is None or most is None or most >= len(rows):
        return rows
    return rows.select(np.sort(np.random.default_rng(seed).permutation(len(rows))[:most]))


def _held_out(
    dataset: Dataset, arguments: DataArguments, seed: int, task: Task, role: str
) -> tuple[Dataset, Dataset, tuple[int, ...]]:
    """What is left, the `test_rows` that are held out, and the numbers of the latter in the dataset."""
    rows = arguments.test_rows
    found = task.hold_out(dataset, rows, arguments, role)
    if found is not None:
        return found
    if rows >= len(dataset):
        raise ValueError(f"`test_rows` should be less than the {len(dataset)} rows it is held out of, got {rows}.")
    split = dataset.train_test_split(test_size=rows, seed=seed)
    numbers = Dataset.from_dict({ROW: range(len(dataset))}).train_test_split(test_size=rows, seed=seed)
    return split["train"], split["test"], tuple(numbers["test"][ROW])
