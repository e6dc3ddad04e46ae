"""Labels in the form that a model takes them, where that is not a tensor.

A detector takes a dictionary for every picture. Batches have a table [B, M, 5] of class, middle x, middle y, width and
height as shares of the picture's sides, in which a line with a negative class holds no object, and a picture whose
objects are not known has `IGNORED_LABEL` everywhere. The detector's own loss is then of the labelled pictures alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_transfer.core.task_loss import IGNORED_LABEL, known_rows
from hf_transfer.modeling.anatomy import unwrap_peft

DENSE_HEADS = ("ForSemanticSegmentation", "ForImageSegmentation")
DETECTION_HEADS = ("ForObjectDetection",)
IGNORE_SETTINGS = ("semantic_loss_ignore_index", "loss_ignore_index")


class LabelForm:
    """Labels as they are, for all models but detectors."""

    weighs_by_labels: ClassVar[bool] = True
    """Whether the loss is a mean over labels, so that a batch with more of them counts more in one of several."""

    def given(self, model: nn.Module, labels: Tensor, count: int = 1) -> Any:
        """What the model's forward is given, of the first copy of the rows where labels can be left out of a loss.

        Args:
            model: a Hugging Face or PEFT model.
            labels: of a batch.
            count: copies of the batch that run as one.
        """
        if count > 1 and not labels.is_floating_point():
            ignored = ignored_class(unwrap_peft(model).config) if labels.ndim > 2 else IGNORED_LABEL
            return torch.cat([labels, *[torch.full_like(labels, ignored)] * (count - 1)])
        return torch.cat([labels] * count)

    def during(self, model: nn.Module, labels: Tensor | None) -> Any:
        """The context of a forward with labels."""
        return nullcontext()


class Objects(LabelForm):
    """Of a detector, whose loss is divided by the boxes of all processes."""

    weighs_by_labels = False

    def given(self, model: nn.Module, labels: Tensor, count: int = 1) -> list[dict[str, Tensor]]:
        return [objects_of(table) for table in torch.cat([labels] * count)]

    def during(self, model: nn.Module, labels: Tensor | None) -> Any:
        return nullcontext() if labels is None else loss_of_labelled(model, known_rows(labels))


def label_form(model: nn.Module) -> LabelForm:
    """The form of labels that a model takes, by the name of its class."""
    return Objects() if type(unwrap_peft(model)).__name__.endswith(DETECTION_HEADS) else LabelForm()


def ignored_class(config: Any) -> int:
    """The number of the pixels that the loss of a segmentation model of this configuration leaves out."""
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
    """What a loss is given, of pictures to keep ([B], bool): tensors [B, ...] or [layers, B, ...] and lists [B]."""
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
