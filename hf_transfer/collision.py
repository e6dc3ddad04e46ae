"""Guard against the retired download accelerator on PyPI that also installs a top-level `hf_transfer`.

Two distributions own the same `hf_transfer/__init__.py` and pip never warns. Old one first, ours second: ours is
imported, but uninstalling the old one takes our `__init__.py` along and leaves an empty namespace package without any
error. Ours first, old one second: the old one is imported. In both cases our submodules survive, so what `__init__`
cannot say any more, they say. huggingface_hub itself needs the old package no longer.

Nothing but the standard library is imported here: this has to work in a broken installation.
"""

import importlib
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

OURS = "hf-transferability"
OLD = "hf_transfer"
FIX = f"pip uninstall -y {OLD} && pip install --force-reinstall --no-deps {OURS}"
OLD_FUNCTIONS = frozenset({"download", "multipart_upload"})

_our_init_ran = False


class CollisionWarning(UserWarning):
    """The old `hf_transfer` is installed beside this package."""


def old_version() -> str | None:
    """The version of the old download accelerator, None if it is not installed."""
    try:
        return metadata.version(OLD)
    except metadata.PackageNotFoundError:
        return None


def warn_about_old() -> None:
    """Called once by `hf_transfer/__init__.py`: notes that it is ours that runs, and warns if the old one is there."""
    global _our_init_ran
    _our_init_ran = True
    if version := old_version():
        warnings.warn(
            f"The old download accelerator hf_transfer {version} is installed too, and its package has the same name "
            f"as that of {OURS}. Uninstalling or upgrading it can break this one, and nothing needs it any more. "
            f"Repair: {FIX}",
            CollisionWarning,
            stacklevel=3,
        )


def old_folder() -> Path | None:
    """Where the old distribution has its package: not our folder if ours is installed in editable mode."""
    try:
        return Path(str(metadata.distribution(OLD).locate_file("hf_transfer"))).resolve()
    except metadata.PackageNotFoundError:
        return None


def what_is_broken() -> str | None:
    """What is wrong with the imported `hf_transfer`, or None if it is ours."""
    if _our_init_ran:
        return None
    package = sys.modules.get("hf_transfer")
    if getattr(package, "__file__", None) is None:
        return "its __init__.py is gone: the old hf_transfer, which owned the same file, was uninstalled"
    return f"its __init__.py ({package.__file__}) belongs to the old hf_transfer {old_version() or ''}".rstrip()


def refuse_if_broken() -> None:
    """Called by submodules, which outlive `__init__.py`.

    Raises:
        ImportError: `import hf_transfer` is not ours, so that nothing would be registered with transformers.
    """
    if broken := what_is_broken():
        raise ImportError(f"The package hf_transfer is broken: {broken}. Repair: {FIX}")


def forward_to_old(name: str) -> Any:
    """The end of `hf_transfer.__getattr__`: the old package's functions, as long as its compiled module is there.

    Raises:
        AttributeError: any other name, or there is no compiled module left.
    """
    if name in OLD_FUNCTIONS:
        try:
            return getattr(importlib.import_module("hf_transfer.hf_transfer"), name)
        except ModuleNotFoundError:
            pass
    raise AttributeError(f"module 'hf_transfer' has no attribute {name!r}")
