"""Readouts: from the outputs of a model to units, which are what a method speaks about.

A unit is an image, a sentence, a token, a pixel of the logits' grid. An objective sees units and never asks which.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_transfer.core.supervision import TaskLoss
from hf_transfer.core.task_loss import SINGLE_LABEL


@dataclass(frozen=True)
class Units:
    """The units of one batch."""

    features: Tensor | None
    """[N, D] float32, or None where the model has none to read."""
    logits: Tensor | None
    """[N, C] float32, or None."""
    labels: Tensor | None
    """[N] or [N, ...], or None."""
    row: Tensor
    """[N], the row of the batch that each unit is of."""


class Readout:
    """What of a model's outputs the objectives see.

        readout = LinearHead().of(model)
        with readout:
            outputs = model(**batch)
        units = readout.read(outputs, batch)

    One readout is of one model. The model carries hooks only inside the `with` block, so that it can be copied and
    saved.

    Args:
        feature_dim, num_outputs: are set by `of`; None where units have no features or no logits.
    """

    units_are_rows: ClassVar[bool] = True
    """Whether there is one unit a row of the batch, in its order."""
    ignored_part: int | None = None
    """In the model's own form of labels, the class of a part of a row that has no label; None where units are rows."""
    problem_type: ClassVar[str] = SINGLE_LABEL
    """What the units' labels are, where `ignored_part` says that they are parts of those of rows."""
    own_task_loss: ClassVar[type[TaskLoss] | None] = None
    """The loss of the task, where it is not that of the units' labels."""
    feature_dim: int | None = None
    num_outputs: int | None = None

    def of(self, model: nn.Module) -> Readout:
        """A copy of this readout for `model`.

        Raises:
            ValueError: the model has nothing that it could read.
        """
        made = copy.copy(self)
        made.find(model)
        return made

    def find(self, model: nn.Module) -> None:
        """Find in the model what is to be read; sets `feature_dim` and `num_outputs`."""

    def __enter__(self) -> Readout:
        return self

    def __exit__(self, *exception: Any) -> None:
        return None

    def read(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Units:
        """The units of the forward pass that gave `outputs`.

        Args:
            outputs: what the model returned.
            batch: its inputs, and `labels` in the model's own form where there are any.
        """
        raise NotImplementedError(f"{type(self).__name__} should define `read(outputs, batch)`.")

    def told(self, outputs: Mapping[str, Any]) -> Tensor | None:
        """What the metrics of rows read; None for the units' logits where units are rows, and else the model's."""
        return None


def read_units(readout: Readout, model: nn.Module, inputs: Mapping[str, Tensor]) -> Units:
    """The units of a forward pass of `model` on `inputs`, by a readout that is of this model."""
    with readout:
        outputs = model(**inputs)
    return readout.read(outputs, inputs)


class Nothing(Readout):
    """No features and no logits: for objectives on weights, inputs or outputs alone. Units are the rows."""

    def read(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Units:
        return Units(None, None, batch.get("labels"), rows_of(batch))


class Named(Readout):
    """Features from an output by its name, such as `image_embeds` of a CLIP model. Units are the rows.

    Args:
        features: name of an output [B, D], or names of several, which come side by side.
        logits: name of an output [B, C], or None.
        width: D of each; the configuration's `projection_dim`, or else its `hidden_size`, when left out.

    Raises:
        ValueError: in `read`, there is no such output, or it is not one vector a row.
    """

    def __init__(self, features: str | Sequence[str], logits: str | None = None, width: int | None = None):
        self.features = (features,) if isinstance(features, str) else tuple(features)
        self.logits = logits
        self.width = width

    def find(self, model: nn.Module) -> None:
        config = getattr(model, "config", None)
        known = (self.width, getattr(config, "projection_dim", None), getattr(config, "hidden_size", None))
        width = next((width for width in known if width is not None), None)
        self.feature_dim = None if width is None else width * len(self.features)
        self.num_outputs = None if self.logits is None else getattr(config, "num_labels", None)

    def read(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Units:
        features = torch.cat([self._named(outputs, name) for name in self.features], dim=1)
        logits = None if self.logits is None else self._named(outputs, self.logits)
        return Units(features, logits, batch.get("labels"), rows_of(batch))

    def _named(self, outputs: Mapping[str, Any], name: str) -> Tensor:
        value = outputs.get(name)
        if not isinstance(value, Tensor) or value.ndim != 2:
            found = {key: list(one.shape) for key, one in outputs.items() if isinstance(one, Tensor)}
            raise ValueError(f"`{name}` should be an output of shape [rows, width]; the model gives {found}.")
        return value.float()


def rows_of(batch: Mapping[str, Tensor]) -> Tensor:
    """The numbers of the rows of a batch, [B]."""
    first = next(iter(batch.values()))
    return torch.arange(len(first), device=first.device)
