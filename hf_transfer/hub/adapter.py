"""What a saved adapter needs beside its weights: what its outputs are, and where its base model is.

PEFT saves neither: the names of classes, and whether several may hold at once, are in the configuration of the model,
which an adapter does not have, and the base is named as it was when it was loaded, which may be a path relative to
another working directory. What outputs are is kept in `adapter_config.json` under `auto_mapping`, the one
mapping in it that PEFT reads back whatever it holds.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from hf_transfer.core.problem_types import are_made_up as are_made_up
from hf_transfer.models.revisions import is_on_hub

logger = logging.getLogger(__name__)

ADAPTER_CONFIG = "adapter_config.json"
NAMES = "id2label"
READING = (
    "mask_ignore_index",
    "series_columns",
    "text_block_size",
    "text_max_length",
    "text_columns",
    "forecasting",
    "class_prompt",
)
"""Fields of a configuration that say how the rows were read that a model was trained on."""
KEPT = ("problem_type", *READING)
"""Further fields of the configuration that is trained, kept where they are set."""


def is_adapter_folder(folder: str | os.PathLike) -> bool:
    """Whether the folder holds an adapter and not a whole model."""
    return (Path(folder) / ADAPTER_CONFIG).is_file() and not (Path(folder) / "config.json").is_file()


def complete_adapter(folder: str | os.PathLike, trained: PreTrainedConfig, reads_head: bool = True) -> None:
    """Write what the outputs are into the adapters of a folder, and a base in a local folder as an absolute path.

    Args:
        folder: as PEFT saved it: the default adapter in the folder itself, others in folders of their names.
        trained: the model's configuration; made-up names (LABEL_0, ...) are left out.
        reads_head: whether its head gives the classes that the configuration names.
    """
    told = {name: getattr(trained, name, None) for name in KEPT}
    told = {name: value for name, value in told.items() if value is not None}
    if reads_head and trained.id2label and not are_made_up(list(trained.id2label.values())):
        told[NAMES] = {str(index): name for index, name in trained.id2label.items()}
    for path in (*Path(folder).glob(ADAPTER_CONFIG), *Path(folder).glob(f"*/{ADAPTER_CONFIG}")):
        config = json.loads(path.read_text())
        base = config.get("base_model_name_or_path")
        if base and Path(base).is_dir():
            config["base_model_name_or_path"] = str(Path(base).resolve())
        if told:
            config["auto_mapping"] = {**(config.get("auto_mapping") or {}), **told}
        path.write_text(json.dumps(config, indent=2, sort_keys=True))


def adapter_class_names(folder: str | os.PathLike) -> list[str] | None:
    """The names of an adapter's classes in the order of its outputs; None where it was saved without."""
    names = (_read(folder).get("auto_mapping") or {}).get(NAMES)
    return None if not names else [names[str(index)] for index in range(len(names))]


def adapter_outputs(folder: str | os.PathLike) -> dict[str, Any]:
    """The fields of a configuration that tell what an adapter's outputs are, as far as it was saved with them."""
    kept = _read(folder).get("auto_mapping") or {}
    found = {name: kept[name] for name in KEPT if name in kept}
    if (names := adapter_class_names(folder)) is not None:
        found |= {NAMES: dict(enumerate(names)), "label2id": {name: place for place, name in enumerate(names)}}
    return found


def adapter_reading(folder: str | os.PathLike) -> dict[str, Any]:
    """Those of `adapter_outputs` that say how its rows were read; its base may have read other rows otherwise."""
    return {name: value for name, value in adapter_outputs(folder).items() if name in READING}


def named_base(folder: str | os.PathLike) -> str | None:
    """The base model of an adapter as its configuration names it."""
    return _read(folder).get("base_model_name_or_path") or None


def is_hub_id(name: str | None) -> bool:
    """Whether a model's name can be one on the Hub and is no folder of this machine."""
    return bool(name) and is_on_hub(name)


def find_base(folder: str | os.PathLike) -> str:
    """The base model of an adapter: a folder of this machine, or a name on the Hub.

    A local folder is looked for as it is named and, where it is not there, beside the adapter: under every folder
    that the adapter is in, so that a project may move and be used from any working directory.

    Raises:
        ValueError: no base is named, or its folder is nowhere.
    """
    name = named_base(folder)
    if name is None:
        raise ValueError(
            f"the adapter `{folder}` names no base model: it was trained on one that was never saved. Save the base, "
            f"and write its folder or Hub id as `base_model_name_or_path` into {ADAPTER_CONFIG}."
        )
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    might_be_remote = is_hub_id(name)
    parts = [part for part in path.parts if part not in (path.anchor, ".", "..")]
    # A name on the Hub is not taken apart: `lab/base` is no folder `base`.
    tails = [parts] if might_be_remote else [parts[start:] for start in range(len(parts))]
    for parent in Path(folder).resolve().parents:
        for tail in tails:
            if (parent.joinpath(*tail) / "config.json").is_file():
                logger.warning("The base model `%s` of the adapter `%s` is taken from %s.", name, folder, parent)
                return str(parent.joinpath(*tail))
    if might_be_remote:
        return name
    raise ValueError(
        f"the base model `{name}` of the adapter `{folder}` is not there, nor beside the adapter. Put the base in its "
        f"place, or write where it is as `base_model_name_or_path` into {Path(folder) / ADAPTER_CONFIG}."
    )


@contextmanager
def linked_copy(folder: str | os.PathLike, texts: Mapping[str, str]) -> Iterator[Path]:
    """A temporary folder with links to all files of `folder`, and other texts in some of them.

    Args:
        folder: what to copy.
        texts: path in the folder -> what stands there in the copy.
    """
    with tempfile.TemporaryDirectory() as made:
        for file in Path(folder).resolve().rglob("*"):
            target = Path(made) / file.relative_to(Path(folder).resolve())
            if not file.is_file() or target.relative_to(made).as_posix() in texts:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.symlink_to(file)
            except OSError:  # Windows without the right to make links
                shutil.copyfile(file, target)
        for name, text in texts.items():
            (Path(made) / name).write_text(text, encoding="utf-8")
        yield Path(made)


def _read(folder: str | os.PathLike) -> dict[str, Any]:
    path = Path(folder) / ADAPTER_CONFIG
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}. The adapter has to be saved again.") from error
