"""From the name of a method to its class or function, imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any


def registered(registry: Mapping[str, str], name: str, kind: str) -> Any:
    """What a registry of "module:attribute" holds under a name.

    Args:
        registry: name -> "module:attribute".
        name: asked for.
        kind: of what the registry holds, for the error.

    Raises:
        ValueError: nothing has this name.
    """
    if name not in registry:
        raise ValueError(f"unknown {kind} `{name}`, accepted: {sorted(registry)}.{nearest(name, registry)}")
    module, attribute = registry[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def nearest(name: str, accepted: Iterable[str]) -> str:
    """A question that names the accepted name most like this one; empty where none is like it."""
    close = difflib.get_close_matches(str(name), list(accepted), n=1)
    return f" Did you mean `{close[0]}`?" if close else ""
