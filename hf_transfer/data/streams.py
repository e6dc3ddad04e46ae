"""Training rows that are read as they come: a `datasets.IterableDataset`, or one for each of two domains.

A stream is read again and again, each time as a new epoch, of which its `shuffle` makes a new order. Every row knows
its visit, so that what a collator draws for it is as repeatable as elsewhere, and a run that goes on passes over the
rows of the steps before.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import TrainingArguments

from hf_transfer.core.objective import IGNORED_LABEL, SOURCE, TARGET, Objective
from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.prepared_streams import PreparedStream
from hf_transfer.data.visits import VISIT_COLUMN, Visit

FIRST_ROWS = 256
"""How many rows of a stream are looked at before training."""


class RowStream(torch.utils.data.IterableDataset):
    """The rows of a stream, without an end.

    Args:
        rows: the stream, a `datasets.IterableDataset` or a PreparedStream; in each epoch it is told its number.
        name: of the stream, for messages.
    """

    def __init__(self, rows: IterableDataset | PreparedStream, name: str = "training"):
        self.rows = rows
        self.name = name
        self.with_visits = False
        """Whether each row has its visit under `VISIT_COLUMN`."""
        self.classes: int | None = None
        """How many classes the model has, where labels are class numbers."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for visit, row in self.visited():
            if self.classes is not None:
                self._check_class(visit, row)
            yield {**row, VISIT_COLUMN: visit} if self.with_visits else row

    def visited(self) -> Iterator[tuple[Visit, dict[str, Any]]]:
        """Every row with its number in the stream and its epoch. Raises ValueError where there is no row."""
        for epoch in count():
            self.rows.set_epoch(epoch)
            number = -1
            for number, row in enumerate(self.rows):
                yield Visit(number, epoch, 0), row
            if number < 0:
                raise self._empty()

    def _empty(self) -> ValueError:
        return ValueError(f"the {self.name} stream is empty: check the split name and any filter before.")

    def _check_class(self, visit: Visit, row: dict[str, Any]) -> None:
        label = next((int(row[name]) for name in LABEL_COLUMNS if name in row), IGNORED_LABEL)
        if label != IGNORED_LABEL and not 0 <= label < self.classes:
            raise ValueError(
                f"row {visit.row} of the {self.name} stream: the label {label} is outside 0..{self.classes - 1}. Load "
                "the model with as many labels as there are classes."
            )

    def first_rows(self, most: int = FIRST_ROWS) -> Dataset:
        """The first rows of the stream, for checks. Raises ValueError where there is none."""
        if isinstance(self.rows, PreparedStream):
            return self.rows.first.select(range(min(most, len(self.rows.first))))
        self.rows.set_epoch(0)
        found = list(islice(self.rows, most))
        if not found:
            raise self._empty()
        return Dataset.from_list(found, features=self.rows.features)


class DomainStream(RowStream):
    """Batches of half a labelled source and half an unlabelled target; a stream that ends first begins again.

    Args:
        source: labelled rows.
        target: rows whose labels, if they have any, are not read.
        batch_size: of one process.

    Raises:
        ValueError: `batch_size` is odd, a stream is empty, or the source has no label column.
    """

    def __init__(
        self, source: IterableDataset | PreparedStream, target: IterableDataset | PreparedStream, batch_size: int
    ):
        if batch_size % 2:
            raise ValueError(f"`per_device_train_batch_size` should be even, half of each domain, got {batch_size}.")
        super().__init__(source, "source")
        self.target = RowStream(target, "target")
        self.half = batch_size // 2
        self.reads_target = True
        """Whether batches have their half of the target."""
        first = next(iter(super().visited()))[1]
        self.label = next((name for name in LABEL_COLUMNS if name in first), None)
        if self.label is None:
            raise ValueError(f"the source stream has no label column, one of {list(LABEL_COLUMNS)}: {sorted(first)}.")
        known = np.asarray(first[self.label])
        unknown = np.full(known.shape, IGNORED_LABEL, known.dtype if known.dtype.kind == "f" else np.int64)
        self.unknown = torch.as_tensor(unknown) if isinstance(first[self.label], Tensor) else unknown.tolist()

    def visited(self) -> Iterator[tuple[Visit, dict[str, Any]]]:
        source, target = super().visited(), self.target.visited()
        while True:
            yield from ((visit, {**row, "domain": SOURCE}) for visit, row in islice(source, self.half))
            for visit, row in islice(target, self.half if self.reads_target else 0):
                # numbers of its own, so that nothing is drawn alike for a source and a target row
                yield visit._replace(row=-1 - visit.row), {**self.without_label(row), "domain": TARGET}

    def without_label(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with an unknown label under the source's name."""
        kept = {name: value for name, value in row.items() if name not in LABEL_COLUMNS}
        return {**kept, self.label: self.unknown}

    def first_rows(self, most: int = FIRST_ROWS) -> Dataset:
        """So many first rows of each domain as one dataset."""
        source = [{**row, "domain": SOURCE} for row in super().first_rows(most)]
        target = [{**self.without_label(row), "domain": TARGET} for row in self.target.first_rows(most)]
        missing = set(source[0]) ^ set(target[0])
        if missing:
            raise ValueError(f"source and target should have the same columns; in one only: {sorted(missing)}.")
        return Dataset.from_list([*source, *target])


def check_stream(args: TrainingArguments, objectives: dict[str, Objective]) -> None:
    """Raises ValueError for what needs the length or all rows of a training set, which a stream does not tell."""
    if args.max_steps <= 0:
        raise ValueError("a stream does not say where it ends: give `max_steps`.")
    if args.dataloader_num_workers:
        raise ValueError(
            "`dataloader_num_workers` should be 0 for a stream, of which every worker would read all rows; got "
            f"{args.dataloader_num_workers}."
        )
    for name, objective in objectives.items():
        needs = sorted(objective.needs & {"episodes", "environments", "row_numbers"})
        if needs or hasattr(objective, "translate") or type(objective).prepare is not Objective.prepare:
            raise ValueError(
                f"objective `{name}` reads the whole training set before training or draws rows by their number: give "
                "a Dataset, such as `Dataset.from_list(list(stream.take(10_000)))`."
            )


def is_stream(*rows: Any) -> bool:
    """Whether one of these training sets is read as it comes."""
    return any(isinstance(one, IterableDataset | PreparedStream | RowStream) for one in rows)
