"""Old import paths lead to the modules of the new ones."""

import importlib
import subprocess
import sys

import pytest

from hf_transfer.core.moved import MOVED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_path_is_the_same_module(old):
    new = importlib.import_module(f"hf_transfer.{MOVED[old]}")
    assert importlib.import_module(f"hf_transfer.{old}") is new
    assert new.__name__ == new.__spec__.name == f"hf_transfer.{MOVED[old]}"


def test_old_paths_come_first():
    """In a fresh process, where the new name was not imported before; a class is one class under both."""
    program = (
        "from hf_transfer.objective import View as old\n"
        "from hf_transfer.domain_adaptation.mldg import MLDG\n"
        "from hf_transfer import objective, View\n"
        "import hf_transfer.core.objective as new\n"
        "assert objective is new and old is View is new.View\n"
        "assert MLDG.__module__ == 'hf_transfer.domain_generalization.mldg'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_what_never_was_there_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("hf_transfer.never_was")
