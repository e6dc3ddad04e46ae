"""Streams whose rows become model inputs as they come, by what prepares whole data sets.

Rows are prepared `ROWS_AT_ONCE` at a time, so that what holds of a data set holds of a stream; what is wrong with the
first of them is said before the training, and what is wrong later when it comes, with the numbers of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from datasets import (
    Dataset,
    IterableDataset,
    are_progress_bars_disabled,
    concatenate_datasets,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from hf_transfer.data.holes import refuse_empty_cells
from hf_transfer.data.language_blocks import block_features, blocks_of, joined_tokens
from hf_transfer.data.prepare import READY_COLUMNS, prepare
from hf_transfer.data.text_collator import TextCollator
from hf_transfer.data.text_columns import find_text_columns

ROWS_AT_ONCE = 1_000

Step = Callable[[Dataset], Dataset]


class PreparedStream:
    """Rows of a stream after some steps, each of which is a function of a data set.

    Args:
        rows: as they were read.
        name: what the stream is for, for messages.
        steps: what makes model inputs of the rows, in this order.
        head: the first rows, where they are read already.

    Raises:
        ValueError: there is no row, or what a step has against the first ones.
    """

    def __init__(
        self,
        rows: IterableDataset,
        name: str,
        steps: tuple[Step, ...] = (),
        head: list[dict[str, Any]] | None = None,
    ):
        self.rows = rows if rows.features is None or head is not None else rows.decode(False)
        self.name = name
        self.steps = steps
        if head is None:
            self.rows.set_epoch(0)
            head = self._read(iter(self.rows), 0)
        if not head:
            raise ValueError(f"the {name} stream is empty: check the split name and any filter before.")
        self.head = head
        self.features = rows.features or Dataset.from_list(head).features
        """Of the rows as they were read."""
        self.first = self._made(head, 0)
        """The first rows, prepared."""

    @property
    def column_names(self) -> list[str]:
        """Of the prepared rows."""
        return self.first.column_names

    def then(self, step: Step) -> PreparedStream:
        """The same stream with one more step."""
        return PreparedStream(self.rows, self.name, (*self.steps, step), self.head)

    def whole(self) -> Dataset:
        """All rows of a stream that ends, in the memory."""
        return concatenate_datasets(list(self.chunks()))

    def set_epoch(self, epoch: int) -> None:
        self.rows.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for chunk in self.chunks():
            yield from chunk

    def chunks(self) -> Iterator[Dataset]:
        """The prepared rows, so many at a time; fewer or more where a step leaves rows out or makes several of one."""
        rows, start = iter(self.rows), 0
        while found := self._read(rows, start):
            yield self._made(found, start)
            start += len(found)

    def _read(self, rows: Iterator[dict[str, Any]], start: int) -> list[dict[str, Any]]:
        try:
            return list(islice(rows, ROWS_AT_ONCE))
        except UnicodeDecodeError as error:
            raise ValueError(
                f"the {self.name} stream is not UTF-8 behind row {start} ({error.reason}): save its files as UTF-8."
            ) from error

    def _made(self, found: list[dict[str, Any]], start: int) -> Dataset:
        try:
            made = Dataset.from_list(found, features=self.features)
            with without_bars():
                for step in self.steps:
                    made = step(made)
        except (ValueError, TypeError) as error:
            where = f" (the first of these rows has the number {start} in the stream)" if start else ""
            raise ValueError(f"the {self.name} stream: {error}{where}") from error
        return made


class BlockStream(PreparedStream):
    """Texts of a stream joined and cut into rows of equal length, whatever rows are read at once.

    Args:
        stream: of texts.
        tokenizer: has an end or separator token.
        block_size: tokens of a row.
        text_column: which column.
        separated: whether that token stands behind every text.
    """

    def __init__(self, stream: PreparedStream, tokenizer: Any, block_size: int, text_column: str, separated: bool):
        def tokens(chunk: Dataset) -> Dataset:
            return joined_tokens(chunk, tokenizer, text_column, separated)

        self.block_size = block_size
        super().__init__(stream.rows, stream.name, (*stream.steps, tokens), stream.head)
        blocks, rest = blocks_of(self.first["input_ids"], block_size)
        if not blocks:
            raise ValueError(
                f"the first {len(stream.head)} texts of the {stream.name} stream have {len(rest)} tokens, less than "
                f"one block of `block_size={block_size}`."
            )
        self.first = Dataset.from_dict({"input_ids": blocks, "labels": blocks}, features=block_features())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rest: list[int] = []
        for chunk in self.chunks():
            blocks, rest = blocks_of(chunk["input_ids"], self.block_size, rest)
            yield from ({"input_ids": block, "labels": block} for block in blocks)


def prepare_stream(
    stream: PreparedStream,
    config: PreTrainedConfig,
    processor: Any = None,
    *,
    text_columns: Sequence[str] = (),
    block_size: int | None = None,
    collator: TextCollator | None = None,
    **keywords: Any,
) -> PreparedStream:
    """The stream as inputs of a model; arguments and errors as of `prepare`.

    Which columns hold the text is decided by the first rows.
    """
    is_text = isinstance(processor, PreTrainedTokenizerBase)
    if is_text and not set(READY_COLUMNS) & set(stream.column_names):
        text_columns = list(text_columns) or find_text_columns(stream.first)
    if block_size is None:
        settings = {"text_columns": text_columns, "collator": collator, **keywords}
        return stream.then(partial(prepare, config=config, processor=processor, **settings))
    given = {"text_columns": text_columns, "block_size": block_size, "collator": collator, **keywords}
    with without_bars():
        prepare(stream.first, config, processor, **given)  # says what is wrong with columns, tokenizer and sizes
    separated = collator is None or collator.keeps_structure
    raw = block_size if collator is None else collator.raw_length(block_size)
    return BlockStream(stream, processor, raw, text_columns[0], separated)


def texts_of_stream(stream: PreparedStream, text_columns: Sequence[str], most: int) -> Iterator[str]:
    """The texts of the first rows of a stream, row by row.

    Args:
        stream: as it was read.
        text_columns: which columns; those that the first rows hold when left out.
        most: at most so many rows.

    Raises:
        ValueError: an empty cell.
    """
    columns = list(text_columns) or find_text_columns(stream.first)

    def checked(rows: Dataset) -> Dataset:
        refuse_empty_cells(rows, columns, "training")
        return rows

    stream = stream.then(checked)
    stream.set_epoch(0)
    for row in islice(stream, most):
        yield from (row[name] for name in columns)


@contextmanager
def without_bars() -> Iterator[None]:
    """Without a progress bar for every few rows."""
    were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            enable_progress_bars()
