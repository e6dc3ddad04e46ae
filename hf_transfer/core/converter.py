"""Converter: a method that changes how a model is built, and what is left of it in a saved folder.

convert    changes the model, in place where it can; names of its weights stay where they can
fold       the ordinary model that a converted one is in evaluation
export     what a run saves of a converted model, in place of the model itself
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from torch import nn

Change = Callable[[nn.Module], nn.Module]


class Converter:
    """`converter(model, **keywords) -> model`, made of a function by `converts`; its keywords are the function's.

    Args:
        convert: the function.
        fold, export: as above; None where the converted model is saved as it is.
        changes_outputs: the saved model is of a class of its own, because the plain one would give other outputs.
    """

    def __init__(
        self,
        convert: Callable[..., nn.Module],
        fold: Change | None = None,
        export: Change | None = None,
        changes_outputs: bool = False,
    ):
        self.convert = convert
        self.fold = fold
        self.export = export
        self.changes_outputs = changes_outputs
        update_wrapper(self, convert)

    def __call__(self, model: nn.Module, **keywords: Any) -> nn.Module:
        return self.convert(model, **keywords)


def converts(
    fold: Change | None = None, export: Change | None = None, changes_outputs: bool = False
) -> Callable[[Callable[..., nn.Module]], Converter]:
    """Decorator: a function `convert(model, **keywords) -> model` becomes a Converter."""
    return lambda convert: Converter(convert, fold, export, changes_outputs)
