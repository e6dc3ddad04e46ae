"""transformers' own model tests, taken from the source distribution of the installed version.

pip fetches it at test time into the user's cache, one process at a time; nothing of it is kept here. Two modules that
its tests import are not in the distribution: they get empty stand-ins. Where pip reaches no registry, `Unavailable`
carries its own words.
"""

import importlib
import os
import subprocess
import sys
import tarfile
import tempfile
import types
from pathlib import Path

import transformers
from filelock import FileLock

PACKAGE = "tests_of_transformers"


class Unavailable(Exception):
    """pip could not fetch what the tests need."""


def _fetch(cache: Path) -> Path:
    """The folder `tests` of the source distribution, fetched once per version of transformers."""
    folder = f"transformers-{transformers.__version__}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "fetching.lock"), tempfile.TemporaryDirectory(dir=cache) as aside:
        if not (cache / folder).exists():
            # unpacked aside and then moved: an interruption leaves no half of it behind
            _download(f"transformers=={transformers.__version__}", aside)
            with tarfile.open(Path(aside) / f"{folder}.tar.gz") as archive:
                archive.extractall(aside, [entry for entry in archive if "/tests/" in entry.name], filter="data")
            (Path(aside) / folder).rename(cache / folder)
    return cache / folder / "tests"


def _download(requirement: str, folder: str) -> None:
    """The source distribution, by pip.

    Raises:
        Unavailable: pip reaches no registry, or takes longer than five minutes.
    """
    command = [sys.executable, "-m", "pip", "download", requirement, "--dest", folder, "--no-deps"]
    command += ["--no-build-isolation", "--no-binary", "transformers"]
    command += ["--disable-pip-version-check", "--retries", "1", "--timeout", "20"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"pip took longer than {error.timeout:.0f} s") from error
    if done.returncode != 0:
        raise Unavailable(f"pip failed: {done.stderr.strip()[-300:]}")


def _stand_in(name: str, **contents) -> None:
    module = types.ModuleType(f"{PACKAGE}.{name}")
    module.__path__ = []
    vars(module).update(contents)
    sys.modules[module.__name__] = module


def load_model_tester_mixin() -> type:
    """The class `ModelTesterMixin` of the installed transformers' tests.

    Raises:
        Unavailable: pip cannot fetch the source distribution.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hf_transfer-tests"
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(_fetch(cache))]
    sys.modules[PACKAGE] = package
    _stand_in("exporters")
    _stand_in("exporters.test_export", ExportTesterMixin=type("ExportTesterMixin", (), {}))
    _stand_in("generation")
    _stand_in("generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
    tests = importlib.import_module(f"{PACKAGE}.test_modeling_common")
    # the names of bare models, which have no loss to train: ours is not among those that transformers ships
    tests.MODEL_MAPPING_NAMES = {**tests.MODEL_MAPPING_NAMES, "flowformer": "FlowformerModel"}
    return tests.ModelTesterMixin
