"""The house: imports run downward only, the architecture's folder travels alone, files and functions stay short."""

import ast
import re
import sys
import warnings
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hf_transfer"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}

FLOORS = [
    {"version", "collision"},
    {"core"},
    {"functional", "models"},
    {"data"},
    {"modeling", "hub"},
    {
        "pretraining",
        "task_adaptation",
        "domain_adaptation",
        "domain_generalization",
        "few_shot",
        "multi_model",
        "tuners",
        "ranking",
        "validators",
    },
    {"training"},
    {"evaluation"},
    {"tasks"},
    {"runs"},
    {"cli"},
]
"""From the ground up. A file may import its own room and those of lower floors; rooms of one floor are strangers."""
ROOF = "__init__"
"""The package's own `__init__` names things of every floor and is imported by none."""

SELF_CONTAINED = "models/flowformer/"
TRAVELS_WITH = {"torch", "transformers", "huggingface_hub", "safetensors", "numpy", *sys.stdlib_module_names}
LONGEST_FILE, LONGEST_FUNCTION, LONG_FUNCTION = 500, 60, 40


def room_of(module: str) -> str:
    """The room of "ranking.logme"."""
    return module.split(".")[0]


def floor_of(room: str) -> int:
    floors = [level for level, rooms in enumerate(FLOORS) if room in rooms]
    assert floors, f"`{room}` has no floor: give it one in FLOORS, and in the design."
    return floors[0]


def module_of(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports_of(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, module) of every import, also those inside functions; `from hf_transfer import x` counts as both."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found.append((node.lineno, module))
            if node.module == "hf_transfer":
                found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def inner_imports(tree: ast.Module) -> list[tuple[int, str]]:
    """Those of hf_transfer itself, without its name."""
    return [
        (line, name.removeprefix("hf_transfer.")) for line, name in imports_of(tree) if name.startswith("hf_transfer.")
    ]


def upward_imports(trees: dict[str, ast.Module]) -> list[str]:
    """One line for every import that does not run downward."""
    wrong = []
    for name, tree in trees.items():
        if name == f"{ROOF}.py":
            continue
        room = room_of(module_of(name))
        for line, target in inner_imports(tree):
            other = room_of(target)
            if other != room and floor_of(other) >= floor_of(room):
                wrong.append(f"{name}:{line} ({room}) imports {target}")
    return wrong


def functions_of(tree: ast.Module):
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def length_of(function: ast.FunctionDef) -> int:
    """Lines of code: without the docstring and the signature."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def each_file(rule) -> list[str]:
    """What the rule, a function of (name, tree), has against any file."""
    return [f"{name}: {complaint}" for name, tree in TREES.items() for complaint in rule(name, tree)]


def test_every_room_has_a_floor():
    rooms = {room_of(module_of(name)) for name in FILES} - {ROOF}
    assert rooms <= set().union(*FLOORS)
    assert len(FILES) > 50


def test_imports_run_downward():
    assert upward_imports(TREES) == []


def test_an_upward_import_is_seen():
    """Also sideways, inside a function, and by the name of a module."""
    for text in (
        "from hf_transfer.training.trainer import TransferTrainer",
        "from hf_transfer.task_adaptation.bss import BSS",
        "def f():\n    import hf_transfer.cli",
        "from hf_transfer import runs",
    ):
        assert upward_imports({"domain_adaptation/new.py": ast.parse(text)}), text
    fine = "from hf_transfer.core.objective import View\nfrom hf_transfer.domain_adaptation.dann import DANN"
    assert upward_imports({"domain_adaptation/new.py": ast.parse(fine)}) == []


def stays_behind(name: str, tree: ast.Module) -> list[str]:
    """Imports that remote code could not follow: only `from .file import name` of its own folder is copied along."""
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wrong += [alias.name for alias in node.names if alias.name.split(".")[0] not in TRAVELS_WITH]
        elif isinstance(node, ast.ImportFrom) and node.level:
            if node.level > 1 or f"{SELF_CONTAINED}{node.module}.py" not in FILES:
                wrong.append("." * node.level + (node.module or ""))
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] not in TRAVELS_WITH:
            wrong.append(node.module)
    return wrong


def test_the_architecture_travels_alone():
    names = [name for name in FILES if name.startswith(SELF_CONTAINED)]
    assert len(names) > 5
    assert {name: stays_behind(name, TREES[name]) for name in names} == {name: [] for name in names}


@pytest.mark.parametrize(
    "text",
    [
        "import hf_transfer",
        "from hf_transfer.core.objective import View",
        "from . import flow_attention",
        "from ..registration import register",
        "from .nowhere import x",
        "import scipy",
    ],
)
def test_what_does_not_travel_is_seen(text):
    assert stays_behind("models/flowformer/new.py", ast.parse(text))


def test_imports_are_absolute_outside_the_architecture():
    def rule(name, tree):
        relative = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
        return [] if name.startswith(SELF_CONTAINED) else relative

    assert each_file(rule) == []


def test_files_are_short():
    lengths = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_functions_are_short():
    def longer_than(limit):
        def rule(_, tree):
            return [f"{f.name} has {length_of(f)} lines" for f in functions_of(tree) if length_of(f) > limit]

        return each_file(rule)

    assert longer_than(LONGEST_FUNCTION) == []
    for long in longer_than(LONG_FUNCTION):
        warnings.warn(f"{long} of code, more than {LONG_FUNCTION}", stacklevel=1)


def test_no_bare_assert():
    """An assert vanishes under `python -O` and tells a user nothing."""
    assert each_file(lambda _, tree: [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]) == []


def test_no_path_of_a_machine():
    pattern = re.compile(r"""["'\s(](/(?:home|root|work|Users|tmp|mnt|opt|var)/[\w./-]*|[A-Z]:\\\w+)""")
    assert each_file(lambda name, _: pattern.findall(FILES[name].read_text())) == []
    assert pattern.findall('open("/home/someone/data.csv")')


def test_no_file_is_called_by_what_it_is_not():
    assert each_file(lambda name, _: {"utils", "helpers", "common", "misc"} & set(module_of(name).split("."))) == []


def test_every_file_says_what_it_holds():
    assert each_file(lambda _, tree: ["no docstring"] if tree.body and ast.get_docstring(tree) is None else []) == []
