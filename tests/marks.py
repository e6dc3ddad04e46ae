"""Cases of a parametrized test that are left out unless slow tests are asked for."""

import pytest


def slow(*values):
    """`pytest.param` of these values, marked slow."""
    return pytest.param(*values, marks=pytest.mark.slow)
