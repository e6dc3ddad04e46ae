"""What users import: every public name is there, says what it does, and costs nothing before it is used."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import hf_transfer

PROMISED = {
    "Objective",
    "View",
    "TransferModel",
    "TransferConfig",
    "TransferTrainer",
    "PretrainingTrainer",
    "TaskAdaptationTrainer",
    "DomainAdaptationTrainer",
    "AlternatingTrainer",
    "rank_models",
}
MODULES = sorted(module.name for module in pkgutil.walk_packages(hf_transfer.__path__, "hf_transfer."))
WITH_NAMES = ["hf_transfer", *(name for name in MODULES if hasattr(importlib.import_module(name), "__all__"))]


def test_what_was_promised_is_public():
    assert PROMISED <= set(hf_transfer.__all__) <= set(dir(hf_transfer))


@pytest.mark.parametrize("package", WITH_NAMES)
def test_every_public_name_is_there_and_says_what_it_is(package):
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{package}.{name} has no docstring"


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        hf_transfer.no_such_name  # noqa: B018


def test_every_module_imports():
    assert len([importlib.import_module(name) for name in MODULES]) > 50


def test_importing_the_package_and_its_command_costs_next_to_nothing():
    """Architecture and tuners are registered when transformers and PEFT are imported; the rest loads when named."""
    heavy = ["torch", "numpy", "transformers", "peft", "datasets", "huggingface_hub", "sklearn", "matplotlib", "rich"]
    code = f"import sys, hf_transfer.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_type_checkers_see_the_lazy_names():
    """A literal `__all__` in the syntax tree would list them; ours is built from a literal dict, which is as good."""
    tree = ast.parse(Path(hf_transfer.__file__).read_text())
    literal = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "_PUBLIC"
    )
    assert set(literal) | {"__version__"} == set(hf_transfer.__all__)
    for name, module in literal.items():
        assert getattr(hf_transfer, name) is getattr(importlib.import_module(module), name)
