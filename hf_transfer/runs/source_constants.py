"""Registries of packages and constants of classes, read from the source: nothing is imported, so that it is quick."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from hf_transfer.core import problem_types

ROOT = Path(__file__).parents[2]


@cache
def tree_of(module: str) -> ast.Module:
    """The syntax tree of one of our modules."""
    path = ROOT / module.replace(".", "/")
    file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    return ast.parse(file.read_text(encoding="utf-8"))


def assigned(body: list[ast.stmt], name: str) -> ast.expr | None:
    """What the statements of a module or a class assign to a name."""
    for statement in body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return statement.value
    return None


def registry_in(module: str, name: str) -> dict[str, str]:
    """A registry of a module, also one that joins others of the same module; empty where there is none."""
    found = assigned(tree_of(module).body, name)
    entries: dict[str, str] = {}
    for key, value in zip(found.keys, found.values, strict=True) if isinstance(found, ast.Dict) else ():
        entries |= registry_in(module, value.id) if key is None else {key.value: ast.literal_eval(value)}
    return entries


def class_constant(module: str, name: str, constant: str) -> ast.expr | None:
    """What a class, or the first of its bases that does, assigns to a constant; None for functions and for none."""
    body = tree_of(module).body
    found = next((node for node in body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if found is None:
        for node in body:
            names = [one.name for one in node.names] if isinstance(node, ast.ImportFrom) else []
            if name in names and node.module.startswith("hf_transfer."):
                return class_constant(node.module, name, constant)
        return None
    own = assigned(found.body, constant)
    bases = (base.id for base in found.bases if isinstance(base, ast.Name))
    inherited = (class_constant(module, base, constant) for base in bases) if own is None else ()
    return own or next((value for value in inherited if value is not None), None)


def problem_types_in(value: ast.expr) -> frozenset[str]:
    """The problem types of `ANY_PROBLEM` or `frozenset({SINGLE_LABEL, ...})`."""
    names = [node.id for node in ast.walk(value) if isinstance(node, ast.Name) and node.id != "frozenset"]
    if names == ["ANY_PROBLEM"]:
        return problem_types.ANY_PROBLEM
    return frozenset(getattr(problem_types, name) for name in names)
