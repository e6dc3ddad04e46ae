"""The collision with the old `hf_transfer` of PyPI, made real: two wheels, a fresh environment, pip."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from hf_transfer import collision

ROOT = Path(__file__).resolve().parents[1]
OLD_SETUP = """
from setuptools import Extension, setup

module = Extension("hf_transfer.hf_transfer", ["hf_transfer.c"], py_limited_api=True,
                   define_macros=[("Py_LIMITED_API", "0x030b0000")])
setup(name="hf_transfer", version="0.1.9", packages=["hf_transfer"], ext_modules=[module])
"""
OLD_INIT = "from .hf_transfer import *\n"  # what its build tool writes
OLD_MODULE = """
#include <Python.h>

static PyObject *old_download(PyObject *self, PyObject *args) { return PyUnicode_FromString("by the old one"); }

static PyMethodDef methods[] = {{"download", old_download, METH_VARARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "hf_transfer", NULL, -1, methods};

PyMODINIT_FUNC PyInit_hf_transfer(void) { return PyModule_Create(&module); }
"""

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None or not Path(sysconfig.get_paths()["include"], "Python.h").is_file(),
    reason="the old package is a compiled module: no C compiler or no Python.h",
)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our wheel and one of the old package, both built by setuptools."""
    folder = tmp_path_factory.mktemp("wheels")
    old = folder / "old"
    (old / "hf_transfer").mkdir(parents=True)
    (old / "setup.py").write_text(OLD_SETUP)
    (old / "hf_transfer.c").write_text(OLD_MODULE)
    (old / "hf_transfer" / "__init__.py").write_text(OLD_INIT)
    ours = folder / "ours"  # a copy, because setuptools builds inside the source tree
    shutil.copytree(ROOT / "hf_transfer", ours / "hf_transfer", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, ours)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "--no-index"]
    running = [subprocess.Popen([*build, "-w", str(folder), str(source)]) for source in (old, ours)]
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    return folder


class Environment:
    """A throw-away virtual environment that sees the packages of this one, but not our package in it."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.python = str(folder / "bin" / "python")
        self.wheels = wheels
        self.site = Path(self("-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").stdout.strip())

    def pip(self, *arguments: str) -> None:
        # Without the link to this environment's packages, so that pip cannot touch those.
        (self.site / "outer.pth").unlink(missing_ok=True)
        pip = [sys.executable, "-m", "pip", "--python", self.python]
        subprocess.run([*pip, *arguments, "-q"], check=True, capture_output=True, timeout=300)

    def install(self, name: str) -> None:
        options = ["--force-reinstall", "--no-deps", "--no-index", "--no-compile", "--find-links", str(self.wheels)]
        self.pip("install", *options, name)

    def uninstall(self, name: str) -> None:
        self.pip("uninstall", "-y", name)

    def __call__(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
        """Run Python as a user would."""
        if hasattr(self, "site"):
            # An editable install works by an import hook of the outer environment, which a path alone does not start.
            (self.site / "outer.pth").write_text(sysconfig.get_paths()["purelib"])
        environment = os.environ | {"PYTHONPATH": "", "PYTHONWARNINGS": ""}
        where = cwd or Path(self.python).parent
        return subprocess.run([self.python, *arguments], capture_output=True, text=True, env=environment, cwd=where)

    def assert_ours_refuses(self, because: str) -> None:
        """A submodule of ours raises, and the doctor reports, both with the command that repairs it."""
        found = self("-c", "from hf_transfer.hub import push_folder")
        assert found.returncode == 1
        last = found.stderr.strip().splitlines()[-1]
        assert last.startswith("ImportError: The package hf_transfer is broken")
        assert because in last
        assert last.endswith(collision.FIX)
        doctor = self(str(Path(self.python).with_name("hf-transfer")), "doctor", "collision")
        assert doctor.returncode == 1, doctor.stdout + doctor.stderr
        assert "[FAIL] hf_transfer: the package is broken" in doctor.stdout
        assert collision.FIX in doctor.stdout


@pytest.fixture
def environment(tmp_path: Path, wheels: Path) -> Environment:
    return Environment(tmp_path / "environment", wheels)


@pytest.mark.slow
def test_old_then_ours_warns_then_breaks_when_the_old_one_goes_and_can_be_repaired(environment: Environment) -> None:
    environment.install("hf_transfer")
    environment.install(collision.OURS)
    assert list((environment.site / "hf_transfer").glob("hf_transfer*.so")), "the compiled module should be left over"
    code = """
import hf_transfer
from hf_transfer.hub import push_folder
print(hf_transfer.download())  # who still calls the old function through our package gets the old compiled one
from hf_transfer.cli.doctor import main
raise SystemExit(main(["collision"]))
"""
    found = environment("-c", code)
    assert found.returncode == 0
    assert "CollisionWarning: The old download accelerator hf_transfer 0.1.9 is installed too" in found.stderr
    assert collision.FIX in found.stderr
    assert found.stdout.startswith(
        "by the old one\n[warn] hf_transfer: the old download accelerator hf_transfer 0.1.9 owns"
    )

    environment.uninstall("hf_transfer")
    assert not (environment.site / "hf_transfer" / "__init__.py").exists()
    silent = environment("-c", "import hf_transfer")
    assert (silent.returncode, silent.stderr) == (0, ""), "an empty namespace package, and Python says nothing"
    environment.assert_ours_refuses("its __init__.py is gone")

    environment.install(collision.OURS)  # the second half of the fix, with --find-links for want of a network
    code = """
import hf_transfer
from hf_transfer.hub import RunFacts, write_card
write_card(".", RunFacts("digits", "image-classification", "AutoModel"))
hf_transfer.download
"""
    found = environment("-c", code)
    # Alone it is silent, carries its card template along, and has no functions of the old one.
    assert found.stderr.startswith("Traceback")
    assert found.stderr.strip().endswith("AttributeError: module 'hf_transfer' has no attribute 'download'")
    assert "# digits" in (Path(environment.python).parent / "README.md").read_text()


@pytest.mark.slow
def test_ours_then_old_imports_the_old_one_and_our_submodules_say_so(environment: Environment) -> None:
    environment.install(collision.OURS)
    environment.install("hf_transfer")
    found = environment("-c", "import hf_transfer; print(hf_transfer.download(), hasattr(hf_transfer, '__version__'))")
    assert found.stdout == "by the old one False\n"
    environment.assert_ours_refuses("belongs to the old hf_transfer 0.1.9")

    environment.uninstall("hf_transfer")
    environment.assert_ours_refuses("its __init__.py is gone")


def test_a_checkout_beside_the_old_one_is_told_apart_by_the_doctor(environment: Environment) -> None:
    """Editable installs come last on the path: programs import the old one, which the doctor in the checkout tells."""
    environment.install("hf_transfer")
    hidden = environment("-c", "import hf_transfer.hub")
    assert hidden.stderr.strip().endswith("ModuleNotFoundError: No module named 'hf_transfer.hub'")
    doctor = environment("-m", "hf_transfer.cli.doctor", "collision", cwd=ROOT)
    assert doctor.returncode == 1
    assert f"is in {environment.site.resolve() / 'hf_transfer'}, and programs" in doctor.stdout
    assert "-> pip uninstall -y hf_transfer\n" in doctor.stdout
