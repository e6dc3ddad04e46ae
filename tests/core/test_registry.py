import math

import pytest

from hf_transfer.core.registry import registered


def test_a_name_is_imported_when_asked_for():
    registry = {"root": "math:sqrt", "absent": "no_such_module:thing"}
    assert registered(registry, "root", "function") is math.sqrt
    with pytest.raises(ModuleNotFoundError):
        registered(registry, "absent", "function")
    with pytest.raises(ValueError, match=r"unknown function `power`, accepted: \['absent', 'root'\]"):
        registered(registry, "power", "function")
