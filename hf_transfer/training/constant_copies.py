"""What objectives keep of the start of a training and never change is written once, beside the checkpoints.

A checkpoint of a model of 22 KB with L2-SP would be twice as large: its starting weights are the same in each.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

CONSTANTS_FILE = "frozen.safetensors"
CHECKSUM = "frozen"
"""Key of the file's checksum in its metadata, and in those of the checkpoints that go with it."""


def constant_names(module: nn.Module) -> set[str]:
    """Names, as in the module's state, of the tensors of copies that are not `persistent`."""
    kept = {name: part for name, part in module.named_modules() if not getattr(part, "persistent", True)}
    return {key for name, part in kept.items() for key in part.state_dict(prefix=f"{name}.")}


def write_constants(state: Mapping[str, Tensor], folder: Path) -> str:
    """The file that all checkpoints in `folder` share, whole or not at all; its checksum.

    Args:
        state: the constant tensors by name.
        folder: of the run.
    """
    tensors = on_cpu(state)
    checksum = checksum_of(tensors)
    unfinished = folder / f".{CONSTANTS_FILE}.{os.getpid()}"
    try:
        save_file(tensors, unfinished, metadata={"format": "pt", CHECKSUM: checksum})
        unfinished.replace(folder / CONSTANTS_FILE)
    finally:
        unfinished.unlink(missing_ok=True)
    return checksum


def on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: state[name].detach().to("cpu", copy=True).contiguous() for name in sorted(state)}


def checksum_of(tensors: dict[str, Tensor]) -> str:
    """Of names, types, shapes and values."""
    return f"{zlib.crc32(save(tensors)):08x}"


def checksum_in(file: Path) -> str | None:
    """The checksum in a file's metadata; None where there is none, or no such file."""
    if not file.is_file():
        return None
    with safe_open(file, framework="pt") as opened:
        return (opened.metadata() or {}).get(CHECKSUM)


def with_constants(stored: dict[str, Tensor], present: Mapping[str, Tensor], objectives: Path) -> dict[str, Tensor]:
    """What a checkpoint holds of the objectives, and what is written beside it.

    A checkpoint that was moved away from its run's folder goes on too where the model that is trained on starts from
    the same weights.

    Args:
        stored: tensors of the checkpoint by name.
        present: constant tensors by name, as they are before the checkpoint is loaded.
        objectives: the file in the checkpoint that holds the others.

    Raises:
        FileNotFoundError: there is no such file beside the checkpoint, and the present start is another.
        RuntimeError: the file is of another training.
    """
    missing = present.keys() - stored.keys()
    if not missing:
        return stored
    file = objectives.resolve().parent.parent / CONSTANTS_FILE
    if not file.is_file() and checksum_of(on_cpu(present)) == checksum_in(objectives):
        return {**present, **stored}
    if not file.is_file():
        raise FileNotFoundError(
            f"{objectives.parent} goes with {CONSTANTS_FILE}, which holds the frozen copies of the training's start, "
            f"and {file} is not there: put that file of the run's output folder beside the checkpoint, or start from "
            "the model that the training began with."
        )
    if checksum_in(file) != checksum_in(objectives):
        raise RuntimeError(
            f"{file} is of another training than {objectives.parent}: put the file of that training beside it."
        )
    beside = load_file(file)
    return {**{name: beside[name] for name in missing if name in beside}, **stored}
