"""Values that a YAML file can hold, and whether one has the type that is asked for."""

from __future__ import annotations

import os
import types
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any, Union, get_args, get_origin

PLAIN_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
PLAIN_TYPES |= {dict: "a mapping", list: "a list", type(None): "null"}


def accepted_types(hint: Any) -> list[type] | None:
    """The plain types of a hint, or None where it has others too, such as an enumeration."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    plain = [get_origin(member) or member for member in members]
    return plain if all(kind in PLAIN_TYPES for kind in plain) else None


def fits(value: Any, accepted: Collection[type]) -> bool:
    """Whether a value has one of the types; a whole number is a number, true and false are not. Numpy's numbers do."""
    if isinstance(value, bool):
        return bool in accepted
    kinds = {float: Real, int: Integral}
    return isinstance(value, tuple(kinds.get(kind, kind) for kind in accepted))


def in_words(accepted: Collection[type]) -> str:
    """ "a whole number or null"."""
    return " or ".join(PLAIN_TYPES[kind] for kind in accepted)


def at_home(text: str) -> str:
    """The text with the home folder for a `~/` at its start, or at that of the value in `--key=~/value`."""
    key, is_option, value = text.partition("=") if text.startswith("--") else ("", "", text)
    return f"{key}{is_option}{os.path.expanduser(value)}" if value.startswith("~/") else text
