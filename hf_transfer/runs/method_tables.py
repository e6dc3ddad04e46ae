"""The method index in the README.md of every family's folder: `python -m hf_transfer.runs.method_tables` writes it.

    row = method | paper | file: what it computes | recipe

The text around the table is written by hand and stays; the table lies between two comments. In a checkout a recipe is
a YAML file of recipes/ that uses the method; where there is none, the cell says how the method is called.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from hf_transfer.runs.arguments import read_yaml
from hf_transfer.runs.method_index import FAMILIES, PACKAGE, Method, all_methods

RECIPES = PACKAGE.parent / "recipes"
BEGIN = "<!-- table: python -m hf_transfer.runs.method_tables -->"
END = "<!-- end of table -->"
NAMING = ("objectives", "converters", "schedules", "pretraining")
"""Keys of a recipe whose value maps names of methods to their keywords."""


@cache
def recipes_by_method(folder: Path = RECIPES) -> dict[str, list[Path]]:
    """Name of a method -> the recipes that use it, the one that is named after it first."""
    used: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.yaml")):
        if {"base", "accelerate"} & set(path.relative_to(folder).parts):
            continue
        values = read_yaml(path)
        names = {name for key in NAMING if isinstance(values.get(key), dict) for name in values[key]}
        names |= {str((values.get("peft") or {}).get("peft_type", "")).lower()}
        names |= {"dat"} if "dat" in values else set()
        names |= {f"{values['hyper_rule']}_hyper_rule"} if "hyper_rule" in values else set()
        for name in names - {""}:
            used.setdefault(name, []).append(path)
    return {name: sorted(paths, key=lambda path: not path.stem.endswith(name)) for name, paths in used.items()}


def recipes_of(method: Method) -> list[Path]:
    """The recipes that use a method, the one that is named after it first; none of what needs none."""
    return [] if method.kind in ("score", "validator", "combination") else recipes_by_method().get(method.name, [])


def usage(method: Method) -> str:
    """How a method without a recipe is called."""
    if method.kind == "score":
        return f"`hf-transfer rank MODEL... --dataset NAME --score {method.name}`"
    if method.kind == "validator":
        return f"`validator: {method.name}` in any domain adaptation YAML"
    if hasattr(method.object, "of"):
        call = f"{method.name}.of({_asked_for(method.object.of)})"
    else:
        call = f"{method.name}({_asked_for(method.object)})"
    return f"`{method.target.split(':')[0].rpartition('.')[0]}.{call}`"


def _asked_for(function) -> str:
    parameters = inspect.signature(function).parameters.values()
    return ", ".join(one.name for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD)


def row_of(method: Method, recipes: Iterable[Path]) -> str:
    """One line of the table; links start in the family's folder."""
    paper = re.sub(r"^https://(huggingface.co/papers/|doi.org/)?", "", method.paper)
    paper = paper if re.fullmatch(r"\d{4}\.\d{4,5}|10\..+", paper) else paper.partition("/")[0]
    attribute = method.target.split(":")[1]
    summary = method.summary.removeprefix(f"{attribute}: ").replace("|", "\\|")
    links = [f"[{path.name}](../../{path.relative_to(PACKAGE.parent).as_posix()})" for path in recipes]
    cells = [
        f"`{method.name}`",
        f"[{paper}]({method.paper})",
        f"[{attribute}](../{method.file}): {summary}",
        links[0] if links else usage(method),
    ]
    return f"| {' | '.join(cells)} |"


def table_of(family: str) -> str:
    """The table of a family, with its two comments."""
    rows = []
    for method in all_methods():
        if method.family == family:
            rows.append(row_of(method, recipes_of(method)))
    return "\n".join([BEGIN, "| method | paper | file | recipe |", "|---|---|---|---|", *rows, END])


def with_table(text: str, family: str) -> str:
    """The text of a README with its table as it should be; at the end where it has none."""
    table = table_of(family)
    if BEGIN not in text:
        return f"{text.rstrip() or f'# {FAMILIES[family]}'}\n\n{table}\n"
    before, _, rest = text.partition(BEGIN)
    return f"{before}{table}{rest.partition(END)[2]}"


def write_tables() -> list[Path]:
    """Bring the table of every family up to date; returns the files that changed."""
    changed = []
    for family in FAMILIES:
        path = PACKAGE / family / "README.md"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if (new := with_table(text, family)) != text:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    for path in write_tables():
        print(f"Wrote {path}.")
