"""The data sets of a run: train, target and test, as model inputs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset
from transformers import PreTrainedConfig

from hf_transfer.data.bundled import load
from hf_transfer.data.checks import check_not_empty, column_values, label_column
from hf_transfer.data.class_names import check_label_spaces, named_label_column, number_words, numbered_as
from hf_transfer.data.prepare import prepare
from hf_transfer.data.splits import scarce_split
from hf_transfer.objective import IGNORED_LABEL
from hf_transfer.runs.arguments import DataArguments

ROW = "_row_of_the_dataset"


@dataclass(frozen=True)
class RunData:
    """Raw datasets of a run; `target` and `test` may be missing."""

    train: Dataset
    target: Dataset | None
    test: Dataset | None
    held_out: tuple[int, ...] = ()
    """Where the test rows were held out of the target or the training data: their numbers in it."""

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes of the training labels; None when these are not class numbers.

        Raises:
            ValueError: no label column, a negative class number other than -100 (no label), or fewer than two classes.
        """
        column = label_column(self.train, "training")
        feature = self.train.features[column]
        if isinstance(feature, ClassLabel):
            return list(feature.names)
        values = column_values(self.train, column)
        if values.dtype.kind not in "iu":
            return None
        if values.max() < 1 or np.any((values < 0) & (values != IGNORED_LABEL)):
            raise ValueError(
                f"column `{column}` of the training dataset should number at least two classes from 0 on, with "
                f"{IGNORED_LABEL} for no label; it holds {np.unique(values)[:10].tolist()}."
            )
        return [str(label) for label in range(int(values.max()) + 1)]

    @property
    def outputs(self) -> int | None:
        """How many numbers a label is where labels are no class numbers but to be predicted; None for classes."""
        values = column_values(self.train, label_column(self.train, "training"))
        return int(np.prod(values.shape[1:])) if values.dtype.kind == "f" else None

    def prepared(
        self, config: PreTrainedConfig, processor: Any, arguments: DataArguments, keep_labels: bool = True
    ) -> RunData:
        """The same datasets as inputs of a model."""
        keywords = {
            "text_columns": arguments.text_columns or (),
            "max_length": arguments.max_length,
            "block_size": arguments.block_size,
            "keep_labels": keep_labels,
        }
        return RunData(
            *(
                None if d is None else prepare(d, config, processor, **keywords)
                for d in (self.train, self.target, self.test)
            ),
            held_out=self.held_out,
        )


def load_data(arguments: DataArguments, seed: int = 0, label_spaces: Collection[str] = ()) -> RunData:
    """Train, target and test as the arguments say.

    The test set is `test_dataset` (or the split `test_split` of the dataset) if given, else `test_rows` held out of
    the target (or of the dataset, when there is no target). `labels_per_class` keeps a few training rows a class.

    Args:
        arguments: what to read.
        seed: of what is drawn.
        label_spaces: of the run's objectives, see `check_label_spaces`.

    Raises:
        ValueError: a dataset cannot be loaded, is empty, or is too small for what is asked of it, or the target has
            other classes than the source.
    """
    own = {"config": arguments.dataset_config, "options": arguments.dataset_options}
    train = number_words(load(arguments.dataset, arguments.split, **own))
    check_not_empty(train, "training")
    target, of_target = None, {"options": arguments.target_options}
    if arguments.target_dataset:
        target = load(arguments.target_dataset, arguments.target_split, **of_target)
    if target is not None:
        check_label_spaces(train, target, label_spaces)
    test, held_out = None, ()
    if arguments.test_dataset or arguments.test_split:
        name = arguments.test_dataset or arguments.dataset
        keywords = own if name == arguments.dataset else of_target if name == arguments.target_dataset else {}
        test = load(name, arguments.test_split, usual_split="test", **keywords)
    if test is None and arguments.test_rows:
        if target is not None:
            target, test, held_out = _held_out(target, arguments.test_rows, seed)
        elif arguments.labels_per_class is None:
            train, test, held_out = _held_out(train, arguments.test_rows, seed)
    if arguments.labels_per_class is not None:
        rows = arguments.test_rows if test is None and arguments.test_rows else 0
        split = scarce_split(train.add_column(ROW, list(range(len(train)))), arguments.labels_per_class, rows, seed)
        held_out = tuple(split["test"][ROW]) if rows else held_out
        split = split.remove_columns(ROW)
        train, test = split["train"], split["test"] if rows else test
    named = named_label_column(train)
    if test is not None and named is not None:
        test = numbered_as(test, train.features[named].names, "test")
    return RunData(train, target, test, held_out)


def _held_out(dataset: Dataset, rows: int, seed: int) -> tuple[Dataset, Dataset, tuple[int, ...]]:
    """What is left, what is held out, and the numbers of the latter in the dataset."""
    if rows >= len(dataset):
        raise ValueError(f"`test_rows` should be less than the {len(dataset)} rows it is held out of, got {rows}.")
    split = dataset.train_test_split(test_size=rows, seed=seed)
    numbers = Dataset.from_dict({ROW: range(len(dataset))}).train_test_split(test_size=rows, seed=seed)
    return split["train"], split["test"], tuple(numbers["test"][ROW])
