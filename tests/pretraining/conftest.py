"""A tiny backbone, two views of eight digits, and a real batch of them as an objective sees it."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.modeling.readouts import Pooled
from tests import tiny

WIDTH = 16


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return tiny.flowformer().flowformer


@pytest.fixture
def context(backbone):
    return BuildContext(backbone, WIDTH, None, Pooled().of(backbone))


@pytest.fixture(scope="session")
def pictures(digits):
    """Two batches [8, 1, 14, 14]: digits, and the same ones shifted and darkened."""
    pixels = tiny.batch_of(digits)["pixel_values"]
    return pixels, 0.8 * pixels.roll(1, dims=3) - 0.1


def features_of(model, pixels):
    return model(pixel_values=pixels).last_hidden_state.mean(dim=1)


def view_of(model, pictures, progress=0.0, joined=True) -> View:
    """What an objective sees; `joined` says whether the second view has features too."""
    first, second = (
        View(features_of(model, one), inputs={"pixel_values": one}, progress=progress, model=model) for one in pictures
    )
    return replace(first, views=(second if joined else replace(second, features=None),))


def rows(count, width, seed):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def lightly(monkeypatch) -> Callable[[str], ModuleType]:
    """Imports a module of lightly, which the losses are compared with; the test is skipped where it is missing.

    The packages around its losses import torchvision, which these do not need: empty ones stand in.
    """
    folder = Path(pytest.importorskip("lightly").__file__).parent
    for name in ("loss", "models", "models.modules"):
        package = ModuleType(f"lightly.{name}")
        package.__path__ = [str(folder.joinpath(*name.split(".")))]
        monkeypatch.setitem(sys.modules, package.__name__, package)
    if find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.ops"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        sys.modules["torchvision.ops"].StochasticDepth = None
    return lambda name: importlib.import_module(f"lightly.{name}")
