"""Keywords of a method, such as {temperature: 2.5}, checked before it is made: their names, and plain types."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from hf_transfer.core.plain_types import accepted_types, fits, in_words
from hf_transfer.core.registry import nearest

KEYWORDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def checked_keywords(make: Callable[..., Any], keywords: Any, method: str) -> dict[str, Any]:
    """The keywords, none where there are None.

    Args:
        make: the class or function that takes them by name.
        keywords: what a user gave.
        method: as the error should call it, such as "objective `mcc`".

    Raises:
        TypeError: no mapping, a keyword that is not taken, or a value of another type than its hint says.
    """
    if not isinstance(keywords or {}, Mapping):
        raise TypeError(f"{method}: keywords should be a mapping, such as {{}}, got {keywords!r}.")
    given = dict(keywords or {})
    parameters = inspect.signature(make).parameters
    open_ended = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    accepted = [name for name, one in parameters.items() if one.kind in KEYWORDS and name not in ("self", "model")]
    hints = hints_of(make)
    for name, value in given.items():
        if name not in accepted and not open_ended:
            raise TypeError(f"{method} has no keyword `{name}`; accepted: {accepted}.{nearest(str(name), accepted)}")
        types = accepted_types(hints[name]) if name in hints else None
        if types is not None and not fits(value, types):
            raise TypeError(f"{method}: `{name}` should be {in_words(types)}, got {value!r}.")
    return given


def hints_of(make: Callable[..., Any]) -> dict[str, Any]:
    """Hints of what a class or function takes; none where they name what is imported for type checks alone."""
    if isinstance(make, type):
        make = inspect.getattr_static(make, "__init__")
    try:
        return get_type_hints(getattr(make, "__wrapped__", make))
    except (NameError, TypeError):
        return {}
