"""A converter is its function, and says what is left of it in a folder."""

import inspect

import pytest
from torch import nn

from hf_transfer.core.converter import Converter, converts
from hf_transfer.training.converters import REGISTRY, converter


def test_a_converter_is_called_as_its_function():
    @converts(export=lambda model: nn.Sequential(model))
    def widen(model, *, by: int = 2):
        """Twice as wide."""
        model.width = by
        return model

    model = nn.Identity()
    assert isinstance(widen, Converter) and widen(model, by=3) is model and model.width == 3
    assert widen.__doc__ == "Twice as wide." and list(inspect.signature(widen).parameters) == ["model", "by"]
    assert isinstance(widen.export(model), nn.Sequential) and widen.fold is None and not widen.changes_outputs
    with pytest.raises(TypeError, match="unexpected keyword argument 'buy'"):
        widen(model, buy=1)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_registered_one_is_a_converter(name):
    assert isinstance(converter(name), Converter)
    assert next(iter(inspect.signature(converter(name)).parameters)) == "model"


def test_what_is_left_in_a_folder():
    assert converter("zoo_tuning").fold is not None and converter("zoo_tuning").export is not None
    assert [name for name in REGISTRY if converter(name).changes_outputs] == ["bit"]
