"""The scripts of recipes/benchmarks as modules, which find each other by their names."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "recipes" / "benchmarks"


@pytest.fixture(scope="module")
def among_the_benchmarks():
    """They import each other as scripts do."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))
