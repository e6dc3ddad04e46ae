"""Rows in other containers than a `datasets.Dataset`: converted where that is clear, or else refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict


def as_dataset(rows: Any, name: str, splits: Sequence[str] = ("train",)) -> Dataset:
    """The rows as a `datasets.Dataset`.

    Args:
        rows: a Dataset; a DatasetDict, of which a split is taken; a pandas frame; a list of rows, or columns by name.
        name: of the argument, for messages.
        splits: which split of a DatasetDict, the first that it has; its only one otherwise.

    Raises:
        TypeError: a dataset that is read as it comes, several datasets, or nothing like rows.
        ValueError: a DatasetDict without these splits.
    """
    if isinstance(rows, Dataset):
        return rows
    if isinstance(rows, DatasetDict):
        found = [split for split in splits if split in rows] or (list(rows) if len(rows) == 1 else [])
        if not found:
            raise ValueError(
                f"`{name}` has the splits {list(rows)}: give one, `dataset[{next(iter(rows), 'train')!r}]`."
            )
        return rows[found[0]]
    if isinstance(rows, pandas.DataFrame):
        words = {column: str for column in rows if isinstance(rows[column].dtype, pandas.CategoricalDtype)}
        missing = [column for column in words if rows[column].isna().any()]
        if missing:
            raise ValueError(f"`{name}`: the columns {missing} have empty cells: fill them, or leave the rows out.")
        return Dataset.from_pandas(rows.astype(words), preserve_index=False)
    if isinstance(rows, list) and rows and all(isinstance(row, Mapping) for row in rows):
        return Dataset.from_list(rows)
    if isinstance(rows, dict) and rows and all(isinstance(column, list) for column in rows.values()):
        return Dataset.from_dict(rows)
    if isinstance(rows, IterableDataset | IterableDatasetDict):
        raise TypeError(
            f"`{name}` is an {type(rows).__name__}, whose rows have no number and cannot be drawn evenly: keep what "
            "you need by `Dataset.from_list(list(rows.take(10_000)))`, or load it without `streaming=True`."
        )
    if isinstance(rows, list | tuple) and rows and all(isinstance(one, Dataset) for one in rows):
        raise TypeError(
            f"`{name}` is a {type(rows).__name__} of {len(rows)} datasets: join them by "
            "`datasets.concatenate_datasets`; methods that tell several sources apart read a column `domain`."
        )
    raise TypeError(
        f"`{name}` should be a datasets.Dataset, got {type(rows).__name__}; a DatasetDict, a pandas.DataFrame and "
        "a list of rows are taken too."
    )


def evaluation_rows(rows: Any) -> Any:
    """What a Trainer evaluates on, converted: rows, or several data sets by name; None where there are none.

    Args:
        rows: as for `as_dataset`; of a DatasetDict every split is a data set of its own.
    """
    if rows is None or isinstance(rows, DatasetDict):
        return None if rows is None else dict(rows)
    if isinstance(rows, dict) and not (rows and all(isinstance(one, list) for one in rows.values())):
        return {name: as_dataset(one, f"eval_dataset[{name!r}]") for name, one in rows.items()}
    return as_dataset(rows, "eval_dataset", ("validation", "test"))
