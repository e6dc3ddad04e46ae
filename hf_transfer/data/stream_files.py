"""Data sets that are read as they come: of the Hub, or shards of text, json, parquet or webdataset on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from glob import glob
from pathlib import Path
from typing import Any

from datasets import IterableDataset, load_dataset

from hf_transfer.data.bundled import BUNDLED, load

BUILDERS = {".txt": "text", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".tar": "webdataset"}
"""Suffix of a shard -> what reads it in `datasets`; behind it may stand one of `PACKED`."""
PACKED = (".gz", ".bz2", ".xz", ".zst")


def load_stream(
    name: str, split: str | None = None, *, config: str | None = None, options: Mapping[str, Any] | None = None
) -> IterableDataset:
    """A data set whose rows are read one after the other, by its Hub identifier, file, folder or pattern of shards.

    Of a text file every line is a row, but for empty ones. A bundled data set, or one that `save_to_disk` wrote, is
    read from its files as any other.

    Args:
        name: such as "HuggingFaceFW/fineweb", "corpus.txt", "shards" or "shards/*.tar".
        split: of a Hub dataset; train when left out.
        config: which configuration of a Hub dataset that has several.
        options: keywords of a bundled data set.

    Raises:
        ValueError: shards of several kinds, of a kind that is not read so, or a dataset that cannot be loaded.
        FileNotFoundError: there is no such file.
    """
    if name in BUNDLED or is_saved(Path(name)):
        return load(name, split, config=config, options=options).to_iterable_dataset()
    shards = shards_of(name)
    if shards:
        if split is not None:
            raise ValueError(f"`split` is for Hub datasets: name the shards of one by a pattern, such as `{name}/a*`.")
        return of_shards(name, shards)
    try:
        return load_dataset(name, config, split=split or "train", streaming=True)
    except Exception as error:
        raise ValueError(
            f"cannot stream `{name}`: it is no bundled name, file, folder or pattern here, and the Hub answered: "
            f"{error}"
        ) from error


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


def shards_of(name: str) -> list[Path]:
    """The files that a name stands for, in the order of their names; none where it is the name of a Hub dataset.

    Raises:
        FileNotFoundError: it looks like a file or a pattern, and there is none.
    """
    path = Path(name)
    if path.is_dir():
        return sorted(one for one in path.iterdir() if one.is_file() and suffix_of(one) in BUILDERS)
    found = sorted(Path(one) for one in glob(name))
    if not found and ("*" in name or suffix_of(path) in BUILDERS):
        raise FileNotFoundError(f"there is no file `{name}`.")
    return found


def suffix_of(path: Path) -> str:
    """The suffix that says how to read a file, in small letters: that below the packing."""
    plain = Path(path.name.lower())
    return Path(plain.stem).suffix if plain.suffix in PACKED else plain.suffix


def of_shards(name: str, shards: list[Path]) -> IterableDataset:
    kinds = {BUILDERS.get(suffix_of(shard), suffix_of(shard)) for shard in shards}
    if len(kinds) > 1 or not kinds <= set(BUILDERS.values()):
        raise ValueError(
            f"`streaming` reads shards of one kind, {sorted(BUILDERS)}, got {sorted(kinds)} in `{name}`: name one "
            "kind by a pattern; a table is read whole (leave `streaming` out), or saved as json lines."
        )
    (kind,) = kinds
    rows = load_dataset(kind, data_files=[str(shard) for shard in shards], split="train", streaming=True)
    return rows.filter(lambda row: bool(row["text"].strip())) if kind == "text" else rows
