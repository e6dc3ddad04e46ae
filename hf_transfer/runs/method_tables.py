"""The method index in the README.md of every family's folder: `python -m hf_transfer.runs.method_tables` writes it.

    row = method | paper | file: what it computes | recipe
    row = task | a recipe of each setting,   in the README.md of the tasks

The text around the table is written by hand and stays; the table lies between two comments. In a checkout a recipe is
a YAML file of recipes/ that uses the method; where there is none, the cell says how the method is called.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hf_transfer.runs.arguments import read_yaml
from hf_transfer.runs.method_index import FAMILIES, PACKAGE, Method, all_methods, methods_named

RECIPES = PACKAGE.parent / "recipes"
BEGIN = "<!-- table: python -m hf_transfer.runs.method_tables -->"
END = "<!-- end of table -->"
NAMING = ("objectives", "converters", "schedules", "pretraining")
"""Keys of a recipe whose value maps names of methods to their keywords."""
TASKS = PACKAGE / "tasks" / "README.md"
UNMEASURED = "Not measured yet."
"""What a recipe says of itself that nobody has run to its end."""
SETTINGS = ("pre-training", "task adaptation", "several models", "domain adaptation", "generalisation")


def recipe_values(folder: Path = RECIPES) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every recipe with what it sets, its base included."""
    for path in sorted(folder.rglob("*.yaml")):
        if not {"base", "accelerate"} & set(path.relative_to(folder).parts):
            yield path, read_yaml(path)


@cache
def recipes_by_method(folder: Path = RECIPES) -> dict[str, list[Path]]:
    """Name of a method -> the recipes that use it, the one that is named after it first."""
    used: dict[str, list[Path]] = {}
    for path, values in recipe_values(folder):
        names = {name for key in NAMING if isinstance(values.get(key), dict) for name in values[key]}
        names |= {str((values.get("peft") or {}).get("peft_type", "")).lower()}
        names |= {"dat"} if "dat" in values else set()
        names |= {f"{values['hyper_rule']}_hyper_rule"} if "hyper_rule" in values else set()
        for name in names - {""}:
            used.setdefault(name, []).append(path)
    return {name: sorted(paths, key=lambda path: not path.stem.endswith(name)) for name, paths in used.items()}


def setting_of(path: Path, values: Mapping[str, Any]) -> str:
    """Which of `SETTINGS` a recipe is of."""
    if "recipes/pretrain.py" in path.read_text(encoding="utf-8").partition("\n")[0]:
        return "pre-training"
    if values.get("target_dataset"):
        return "domain adaptation"
    families = {method.family for name in values.get("objectives") or {} for method in methods_named(name)}
    for family, setting in (("domain_generalization", "generalisation"), ("multi_model", "several models")):
        if family in families:
            return setting
    return "task adaptation"


def was_run(path: Path) -> bool:
    """Whether a recipe was measured: those of a paper's size, and those that say so, were not."""
    return not path.stem.endswith("_paper") and UNMEASURED not in path.read_text(encoding="utf-8")


def matrix(folder: Path = RECIPES) -> str:
    """Task by setting, a recipe a cell: the one that composes most, and of these the one of the shortest name."""
    cells: dict[str, dict[str, list[tuple[int, int, str]]]] = {}
    for path, values in recipe_values(folder):
        task = values.get("task")
        if isinstance(task, str) and was_run(path):
            order = (-len(values.get("objectives") or {}), len(path.stem), path.relative_to(folder.parent).as_posix())
            cells.setdefault(task, {}).setdefault(setting_of(path, values), []).append(order)
    lines = [f"| task | {' | '.join(SETTINGS)} |", "|---|" + "---|" * len(SETTINGS)]
    for task in sorted(cells):
        paths = [min(cells[task][setting])[-1] if setting in cells[task] else "" for setting in SETTINGS]
        links = [f"[{Path(path).stem}](../../{path})" if path else "" for path in paths]
        lines.append(f"| `{task}` | {' | '.join(links)} |")
    return "\n".join([BEGIN, *lines, END])


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


def with_table(text: str, table: str, title: str = "") -> str:
    """The text of a README with its table as it should be; at the end where it has none."""
    if BEGIN not in text:
        return f"{text.rstrip() or f'# {title}'}\n\n{table}\n"
    before, _, rest = text.partition(BEGIN)
    return f"{before}{table}{rest.partition(END)[2]}"


def write_tables() -> list[Path]:
    """Bring the table of every family up to date; returns the files that changed."""
    changed = []
    tables = {PACKAGE / family / "README.md": (table_of(family), title) for family, title in FAMILIES.items()}
    for path, made in {**tables, TASKS: (matrix(), "Tasks")}.items():
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if (new := with_table(text, *made)) != text:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    for path in write_tables():
        print(f"Wrote {path}.")
