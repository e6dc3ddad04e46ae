"""Values of arguments: read as YAML 1.2 reads them, and of the type that the argument has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import yaml

from hf_transfer.core.plain_types import PLAIN_TYPES, accepted_types, at_home, fits, in_words

OWN_RULES = ("bool", "int", "float", "timestamp")
"""Kinds of values that YAML 1.2 tells otherwise than YAML 1.1, or does not know."""


class PlainLoader(yaml.SafeLoader):
    """PyYAML reads YAML 1.1, where `no` is false, 1e-3 a string, 010 eight, 1:30 ninety and 2026-01-31 a date; people
    write `save_strategy: no` and `--learning_rate 1e-3`, and mean what YAML 1.2 reads. A path from `~/` on is that of
    the home folder, as in a shell.
    """

    yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0].rpartition(":")[2] not in OWN_RULES]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping in which every key stands once: of two values PyYAML would take the last, and say nothing."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen and key.value != "<<":
                raise yaml.composer.ComposerError(None, None, f"the key `{key.value}` stands twice", key.start_mark)
            seen.add(name)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number in decimal, or in 0x and 0o."""
        digits = self.construct_scalar(node)
        return int(digits, 0 if digits.startswith(("0x", "0o")) else 10)

    def construct_yaml_str(self, node: yaml.ScalarNode) -> str:
        """A string, with the home folder for `~`."""
        return at_home(self.construct_scalar(node))


NUMBER = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
WHOLE = r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+"
PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
PlainLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(f"^(?:{WHOLE})$"), list("-+0123456789"))
PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{NUMBER})$"), list("-+.0123456789"))
PlainLoader.add_constructor("tag:yaml.org,2002:int", PlainLoader.construct_yaml_int)
PlainLoader.add_constructor("tag:yaml.org,2002:str", PlainLoader.construct_yaml_str)


def read_value(text: str, name: str) -> Any:
    """The value that `text` is in YAML.

    Args:
        text: YAML.
        name: what is being read, for the message.

    Raises:
        ValueError: it is not YAML.
    """
    try:
        return yaml.load(text, Loader=PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"`{name}` cannot be read as YAML: {error}") from error


def read_mapping(text: str, name: str) -> dict[str, Any]:
    """The mapping that `text` is in YAML. Raises ValueError, as `read_value`, and where it is something else."""
    value = read_value(text, name)
    if not isinstance(value, dict):
        raise ValueError(f"`{name}` should be {PLAIN_TYPES[dict]}, got {value!r}.")
    return value


def read_names(words: Sequence[str] | None) -> tuple[str, ...]:
    """Names from an option that is given once or several times, as plain words or as lists in YAML: '[title, text]'.

    Raises:
        ValueError: what starts as a list cannot be read as one.
    """
    lists = (read_value(word, word) if word.startswith("[") else [word] for word in words or ())
    return tuple(str(name) for listed in lists for name in listed)


def read_label_column(words: Sequence[str] | None) -> str | tuple[str, ...] | None:
    """The label column of an option as `read_names` reads it; several names are columns that are labels together."""
    names = read_names(words)
    return names if len(names) > 1 else names[0] if names else None


def check_types(values: Mapping[str, Any], classes: list[type]) -> None:
    """Every value has the type that its field in one of the dataclasses has.

    Raises:
        ValueError: one has another type.
    """
    hints = {name: hint for cls in classes for name, hint in get_type_hints(cls).items()}
    for name, value in values.items():
        accepted = accepted_types(hints[name])
        if accepted is not None and not fits(value, accepted):
            raise ValueError(f"`{name}` should be {in_words(accepted)}, got {value!r}.")
