"""Labels in the form that a model takes them, where that is not a tensor with `IGNORED_LABEL` for what is unknown.

maps     of a segmentation model: [B, H, W], with the model's own number for pixels that its loss leaves out
objects  of a detector: from [B, M, 5] (class, middle x, middle y, width, height as shares of the picture's sides) a
         dictionary for every picture, and its loss is of the labelled pictures alone

In a table of objects a line whose class is negative holds none; a picture without a label has `IGNORED_LABEL`
everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from hf_transfer.core.task_loss import IGNORED_LABEL, known_rows
from hf_transfer.modeling.anatomy import unwrap_peft

NO_OBJECT = -1
"""The class of a line that fills up the table of a picture with fewer objects than others have."""
DENSE_HEADS = ("ForSemanticSegmentation", "ForImageSegmentation")
DETECTION_HEADS = ("ForObjectDetection",)
IGNORE_SETTINGS = ("semantic_loss_ignore_index", "loss_ignore_index")


class LabelForm:
    """Labels as they are, for all models but those named below."""

    def given(self, model: nn.Module, labels: Tensor) -> Any:
        """What the model's forward is given."""
        return labels

    def during(self, model: nn.Module, labels: Tensor | None) -> Any:
        """The context of a forward with labels."""
        return nullcontext()


class Maps(LabelForm):
    """Of a segmentation model."""

    def given(self, model: nn.Module, labels: Tensor) -> Tensor:
        return labels.masked_fill(labels == IGNORED_LABEL, ignored_class(model))


class Objects(LabelForm):
    """Of a detector."""

    def given(self, model: nn.Module, labels: Tensor) -> list[dict[str, Tensor]]:
        return [objects_of(table) for table in labels]

    def during(self, model: nn.Module, labels: Tensor | None) -> Any:
        return nullcontext() if labels is None else loss_of_labelled(model, known_rows(labels))


def label_form(model: nn.Module) -> LabelForm:
    """The form of labels that a model takes, by the name of its class."""
    name = type(unwrap_peft(model)).__name__
    if name.endswith(DENSE_HEADS):
        return Maps()
    return Objects() if name.endswith(DETECTION_HEADS) else LabelForm()


def ignored_class(model: nn.Module) -> int:
    """The number of the pixels that a segmentation model's loss leaves out."""
    config = unwrap_peft(model).config
    found = (getattr(config, name, None) for name in IGNORE_SETTINGS)
    return next((value for value in found if value is not None), IGNORED_LABEL)


def objects_of(table: Tensor) -> dict[str, Tensor]:
    """Objects [M, 5] of a picture as a detector takes them: `class_labels` [m] and `boxes` [m, 4]."""
    table = table[table[:, 0] >= 0]
    return {"class_labels": table[:, 0].long(), "boxes": table[:, 1:].float()}


@contextmanager
def loss_of_labelled(model: nn.Module, labelled: Tensor) -> Iterator[None]:
    """Inside, the detector's own loss is of the labelled pictures ([B], bool) alone, and 0 where there is none.

    A detector takes every query of a picture without objects for background; the pictures of an unlabelled target
    would teach it that nothing is there.
    """
    base = unwrap_peft(model)
    if labelled.all():
        yield
        return
    own: Callable[..., Any] = base.loss_function
    before = base.__dict__.get("_loss_function")

    def of_labelled(*arguments: Any, **keywords: Any) -> Any:
        if not labelled.any():
            zero = sum(one.sum() * 0.0 for one in arguments if isinstance(one, Tensor))
            return zero, {}, None
        arguments = tuple(rows_of_batch(one, labelled) for one in arguments)
        return own(*arguments, **{name: rows_of_batch(value, labelled) for name, value in keywords.items()})

    base.loss_function = of_labelled
    try:
        yield
    finally:
        if before is None:
            del base._loss_function
        else:
            base.loss_function = before


def rows_of_batch(value: Any, keep: Tensor) -> Any:
    """What a loss is given, of the pictures to keep ([B], bool): tensors [B, ...] or [layers, B, ...] and lists [B]."""
    count = len(keep)
    if isinstance(value, Tensor):
        if value.ndim and len(value) == count:
            return value[keep]
        return value[:, keep] if value.ndim > 1 and value.shape[1] == count else value
    if isinstance(value, list | tuple) and len(value) == count:
        return type(value)(one for one, kept in zip(value, keep.tolist(), strict=True) if kept)
    if isinstance(value, Mapping):  # of RT-DETR's denoising, which tells the pictures' queries apart in a list
        return {name: rows_of_batch(one, keep) if name.endswith("idx") else one for name, one in value.items()}
    return value


def padded_objects(tables: list[Tensor]) -> Tensor:
    """Tables [M_i, 5] as one tensor [B, M, 5], filled up with lines without an object."""
    filled = torch.zeros(len(tables), max(1, *(len(one) for one in tables)), 5)
    filled[..., 0] = NO_OBJECT
    for place, table in enumerate(tables):
        filled[place, : len(table)] = table
        if len(table) and (table == IGNORED_LABEL).all():
            filled[place] = IGNORED_LABEL
    return filled
