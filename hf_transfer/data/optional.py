"""Packages that only some data sets need."""

from __future__ import annotations

import importlib
from types import ModuleType


def import_optional(module: str, needed_for: str) -> ModuleType:
    """The module, imported when it is first needed.

    Args:
        module: dotted name of a module of an optional package.
        needed_for: what cannot be had without it, for the message.

    Raises:
        ValueError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise ValueError(
            f'{needed_for} needs the package `{package}`: pip install "hf-transferability[data]" ({error}).'
        ) from error
