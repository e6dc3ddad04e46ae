"""The data sets of a run that reads its training rows as they come (`streaming: true`)."""

from __future__ import annotations

from datasets import Dataset, IterableDataset
from transformers.utils import logging

from hf_transfer.data.labels import has_labels, read_labels, read_labels_as, with_one_label_column
from hf_transfer.data.prepared_streams import PreparedStream
from hf_transfer.data.stream_files import load_stream
from hf_transfer.runs.arguments import DataArguments, Experiment
from hf_transfer.runs.data import RunData, check_same_column

logger = logging.get_logger(__name__)

SHUFFLE_BUFFER = 1_000
"""Rows of which the next one is drawn, when `shuffle_buffer` is left out; as in `datasets`."""
READ_WHOLE = {"labels_per_class": "draws rows of every class", "dat": "weighs every row by its class"}
"""Arguments of the data that need all rows before training, and why."""


def check_streaming(experiment: Experiment) -> None:
    """Raises ValueError for what a run that streams cannot do, before anything is read."""
    _, data_args, run_args, config = experiment
    if not data_args.streaming:
        if data_args.shuffle_buffer is not None:
            raise ValueError("`shuffle_buffer` is for `streaming: true`; other rows are drawn from all of them.")
        return
    if config.max_steps <= 0:
        raise ValueError("a stream does not say where it ends: give `max_steps` beside `streaming: true`.")
    for name, why in READ_WHOLE.items():
        if getattr(data_args, name) is not None:
            raise ValueError(f"`{name}` {why}, and `streaming: true` reads them as they come: leave one of them out.")
    if run_args.student_rounds or run_args.guard or run_args.source_only is not None:
        raise ValueError(
            "`student_rounds`, `guard` and `source_only` compare trainings on the same rows by their numbers: leave "
            "`streaming` out."
        )


def load_streams(arguments: DataArguments, seed: int = 0, reads_labels: bool = True) -> RunData:
    """Train, target and test as the arguments say; the first two are streams.

    The test set is `test_dataset`, or the split `test_split` of the dataset, of which at most `test_rows` are read;
    without either, `test_rows` are the first rows of the target (or of the dataset, when there is no target), which
    are then not trained on. `max_samples` trains on the first rows alone.

    Args:
        arguments: what to read.
        seed: of the order in which rows leave the buffer.
        reads_labels: False for pre-training, which leaves label columns as they are.

    Raises:
        ValueError: a stream cannot be read, is empty, or its labels cannot be read.
    """
    own = {"config": arguments.dataset_config, "options": arguments.dataset_options}
    rows = load_stream(arguments.dataset, arguments.split, **own)
    target_rows = None
    if arguments.target_dataset:
        target_rows = load_stream(arguments.target_dataset, arguments.target_split, options=arguments.target_options)
    test = named_test(arguments)
    if test is None and arguments.test_rows:
        held_out = rows if target_rows is None else target_rows
        test = PreparedStream(held_out.take(arguments.test_rows), "test").whole()
        held_out = held_out.skip(arguments.test_rows)
        rows, target_rows = (held_out, None) if target_rows is None else (rows, held_out)
    train = _drawn(rows, arguments, seed, "training")
    target = None if target_rows is None else _drawn(target_rows, arguments, seed, "target")
    if not reads_labels or not has_labels(train.first, arguments.label_column):
        return RunData(train, target, test)
    return _with_labels(RunData(train, target, test), arguments)


def named_test(arguments: DataArguments) -> Dataset | None:
    """The test set that the arguments name, read whole or up to `test_rows`."""
    if not (arguments.test_dataset or arguments.test_split):
        return None
    name = arguments.test_dataset or arguments.dataset
    own = {"config": arguments.dataset_config, "options": arguments.dataset_options}
    rows = load_stream(name, arguments.test_split, **(own if name == arguments.dataset else {}))
    return PreparedStream(rows if not arguments.test_rows else rows.take(arguments.test_rows), "test").whole()


def _drawn(rows: IterableDataset, arguments: DataArguments, seed: int, name: str) -> PreparedStream:
    """The rows in the order in which they leave a buffer."""
    if arguments.max_samples is not None:
        rows = rows.take(arguments.max_samples)
    buffer = SHUFFLE_BUFFER if arguments.shuffle_buffer is None else arguments.shuffle_buffer
    return PreparedStream(rows.shuffle(seed=seed, buffer_size=buffer) if buffer else rows, name)


def _with_labels(raw: RunData, arguments: DataArguments) -> RunData:
    """Labels as numbers, of the kind that the first rows have."""
    column = arguments.label_column
    _, kind = read_labels(raw.train.first, "training", column, arguments.problem_type)
    logger.warning(f"`{arguments.dataset}`, read as it comes: {kind.in_words()}, by its first rows.")

    def numbered(rows: Dataset) -> Dataset:
        return read_labels_as(rows, kind, "training", column, "the first rows of the stream")

    def one_column(rows: Dataset) -> Dataset:
        return with_one_label_column(rows, "target", column)[0] if has_labels(rows, column) else rows

    test = raw.test
    if test is not None:
        check_same_column(test, "test", column, raw.train.first.column_names)
    of_test = column if test is not None and has_labels(test, column) else None
    if test is not None and has_labels(test, of_test):
        test = read_labels_as(test, kind, "test", of_test, "the first rows of the stream")
    target = None if raw.target is None else raw.target.then(one_column)
    return RunData(raw.train.then(numbered), target, test, labels=kind)
