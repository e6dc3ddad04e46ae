"""The models that a run draws on beside the one in training: teachers, members, heads, towers, tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hf_transfer.hub import is_commit
from hf_transfer.modeling.two_towers import PARTS
from hf_transfer.models.revisions import is_on_hub, split_revision
from hf_transfer.models.short_names import SHORT_NAMES

NAMING = ("teacher", "checkpoints", "source_head")
"""Keywords of objectives and converters that name models."""
GROUPS = ("objectives", "converters")
INSIDE = {"architecture": tuple(PARTS), "dat": ("classifier",)}
"""Argument of a run -> which of its entries name models, where they are strings."""


def with_names(arguments: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The arguments of a run with other names of models; what is no name, such as a model itself, stays.

    Args:
        arguments: of a run by name, of which those that name no models stay.
        change: name -> the one that takes its place.
    """
    changed = dict(arguments)
    for group in GROUPS:
        if arguments.get(group):
            changed[group] = {part: _entries(keywords, NAMING, change) for part, keywords in arguments[group].items()}
    for name, entries in INSIDE.items():
        changed |= {name: _entries(arguments[name], entries, change)} if arguments.get(name) else {}
    if isinstance(arguments.get("tokenizer"), str):
        changed["tokenizer"] = change(arguments["tokenizer"])
    return changed


def names_in(arguments: Mapping[str, Any]) -> list[str]:
    """Every name of a model among the arguments of a run but that of `model`, each once."""
    found: dict[str, None] = {}

    def keep(name: str) -> str:
        found[name] = None
        return name

    with_names(arguments, keep)
    return list(found)


def may_move(name: str) -> bool:
    """Whether a name means a model on the Hub at whatever commit its branch or tag is: no folder, and no commit in it.

    Args:
        name: packaged name, folder or Hub id, possibly with @REVISION.
    """
    stem, revision = split_revision(name)
    return name not in SHORT_NAMES and is_on_hub(stem) and not is_commit(revision)


def _entries(given: Any, names: tuple[str, ...], change: Callable[[str], str]) -> Any:
    if not isinstance(given, Mapping):
        return given
    return {key: _changed(value, change) if key in names else value for key, value in given.items()}


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return [_changed(one, change) for one in value]
    return value
