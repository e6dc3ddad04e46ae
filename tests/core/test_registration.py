"""What is registered when transformers or PEFT is imported: in every order, and never in the middle of an import."""

import subprocess
import sys
import warnings

import pytest

from hf_transfer.core import registration
from hf_transfer.core.registration import Registrar, RegistrationWarning

CHECK = """
from transformers import CONFIG_MAPPING, AttentionInterface
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as layers
import sys
from hf_transfer.core.registration import Registrar
assert "flowformer" in CONFIG_MAPPING and "flow" in AttentionInterface().valid_keys()
assert "RESIDUAL" in [str(getattr(kind, "value", kind)) for kind in PEFT_TYPE_TO_CONFIG_MAPPING]
assert "flowformer" in layers
assert not any(isinstance(finder, Registrar) for finder in sys.meta_path)
"""
TRAINER = "import hf_transfer.training.family_trainers; print(*sys.modules)"
FILES = {
    "outer": "import ours_low",
    "ours_low": "import first\nVALUE = 1",
    "first": "",
    "second": "import first",
    "register_first": "from ours_low import VALUE\ndef go(): CALLS.append('first')\nCALLS = []",
    "register_second": "import second\nassert second.__spec__\ndef go(): CALLS.append('second')\nCALLS = []",
    "register_broken": "import nothing_of_this_name",
}
"""Module -> its text. `ours_low` imports the watched package `first`, whose registration imports `ours_low`."""


def test_whoever_imports_transformers_and_peft_finds_ours():
    """PEFT imports transformers in its own middle, and `model_anatomy`, which the tuners import, imports both.

    A trainer then loads neither rankings nor what draws: they took 48 MiB of every training.
    """
    done = subprocess.run(
        [sys.executable, "-c", "import hf_transfer.modeling.anatomy" + CHECK + TRAINER],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert "hf_transfer.training.trainer" in loaded
    assert not {"matplotlib", "scipy.stats", "hf_transfer.ranking.scorer"} & set(loaded)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """The modules of FILES, and a registrar that watches some of them."""
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = {"first": "register_first:go", "second": "register_second:go"}
    monkeypatch.setattr(registration, "REGISTRATIONS", entries)

    class Watching(Registrar):
        def watches(self, name):
            return name in ("ours_low", "first", "second")

    registrar = Watching()
    monkeypatch.setattr(sys, "meta_path", [registrar, *sys.meta_path])
    yield registrar
    for name in FILES:
        sys.modules.pop(name, None)


def calls() -> list[str]:
    modules = (sys.modules.get(f"register_{name}") for name in ("first", "second"))
    return [call for module in modules if module is not None for call in module.CALLS]


def test_each_is_registered_once_when_its_package_is_imported(packages):
    assert calls() == []
    __import__("first")
    assert calls() == ["first"] and packages in sys.meta_path
    __import__("second")
    assert calls() == ["first", "second"] and packages not in sys.meta_path


def test_a_module_of_ours_is_whole_before_a_registration_imports_it(packages):
    __import__("outer")
    assert calls() == ["first"] and sys.modules["ours_low"].VALUE == 1


def test_a_package_that_imports_the_other_is_whole_first(packages):
    __import__("second")
    assert calls() == ["first", "second"]


def test_what_is_imported_already_is_registered_at_once(packages):
    sys.meta_path.remove(packages)
    __import__("first")
    packages.register()
    assert calls() == ["first"]


def test_a_registration_that_fails_is_a_warning_and_not_the_end_of_an_import(packages, monkeypatch):
    monkeypatch.setitem(registration.REGISTRATIONS, "first", "register_broken:go")
    packages.pending = dict(registration.REGISTRATIONS)
    with pytest.warns(RegistrationWarning, match="nothing_of_this_name.*`hf-transfer doctor` says what to mend"):
        __import__("first")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        __import__("ours_low")


def test_a_package_that_fails_to_import_leaves_the_watch_in_order(packages, tmp_path):
    (tmp_path / "second.py").write_text("raise ImportError('broken')")
    with pytest.raises(ImportError, match="broken"):
        __import__("second")
    __import__("first")
    assert calls() == ["first"]
