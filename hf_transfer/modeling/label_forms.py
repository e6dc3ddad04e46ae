"""Labels in the form that a model takes them, where that is not a tensor.

A detector takes a dictionary for every picture. Batches have a table [B, M, 5] of class, middle x, middle y, width and
height as shares of the picture's sides, in which a line with a negative class holds no object, and a picture whose
objects are not known has `IGNORED_LABEL` everywhere. The detector's own loss is then of the labelled pictures alone:

    training     L(all pictures of the batch),   a sum over them divided by the number of their boxes
    evaluation   mean over pictures of L(picture), which does not depend on how they are put into batches
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.loss import loss_for_object_detection

from hf_transfer.core.task_loss import IGNORED_LABEL, known_rows
from hf_transfer.modeling.anatomy import unwrap_peft

DENSE_HEADS = ("ForSemanticSegmentation", "ForImageSegmentation")
DETECTION_HEADS = ("ForObjectDetection",)
FIRST_STAGE = "enc_topk_logits"
"""What the losses of RT-DETR and its kin are given by name; their decoders tell the layers of a picture side by side,
[B, layers, Q, C], where those of all others have the layers first."""
STATE = "PartialState"
"""What transformers' losses of detectors ask for the number of processes."""
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
        return nullcontext() if labels is None else loss_of_labelled(model, known_rows(labels), not model.training)


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
def loss_of_labelled(model: nn.Module, labelled: Tensor, of_each: bool = False) -> Iterator[None]:
    """Inside, the detector's own loss is of the labelled pictures ([B], bool) alone, and 0 where there is none.

    A detector takes every query of a picture without objects for background; the pictures of an unlabelled target
    would teach it that nothing is there.

    Args:
        model: the detector.
        labelled: which pictures have labels.
        of_each: the mean of the losses of single pictures, in place of the loss of all together.
    """
    base = unwrap_peft(model)
    if labelled.all() and not of_each:
        yield
        return
    own: Callable[..., Any] = base.loss_function
    before = base.__dict__.get("_loss_function")

    def of_pictures(keep: Tensor, arguments: tuple, keywords: dict[str, Any]) -> Any:
        layers_first = FIRST_STAGE not in keywords
        given = (rows_of_batch(one, keep, layers_first) for one in arguments)
        return own(*given, **{name: rows_of_batch(value, keep, layers_first) for name, value in keywords.items()})

    def of_labelled(*arguments: Any, **keywords: Any) -> Any:
        if not labelled.any():
            zero = sum(one.sum() * 0.0 for one in arguments if isinstance(one, Tensor))
            return zero, {}, None
        if not of_each:
            return of_pictures(labelled, arguments, keywords)
        single = torch.eye(len(labelled), dtype=torch.bool, device=labelled.device)
        with of_this_process():
            losses = [of_pictures(keep, arguments, keywords)[0].reshape(()) for keep in single]
        return torch.stack(losses)[labelled].mean(), {}, None

    base.loss_function = of_labelled
    try:
        yield
    finally:
        if before is None:
            del base._loss_function
        else:
            base.loss_function = before


@contextmanager
def of_this_process() -> Iterator[None]:
    """Inside, a detector's loss is divided by its own number of boxes, and not by the mean over processes."""
    before = getattr(loss_for_object_detection, STATE, None)
    setattr(loss_for_object_detection, STATE, SimpleNamespace(_shared_state={}))
    try:
        yield
    finally:
        setattr(loss_for_object_detection, STATE, before)


def rows_of_batch(value: Any, keep: Tensor, layers_first: bool = True) -> Any:
    """What a loss is given, of pictures to keep ([B], bool): tensors [B, ...] or [layers, B, ...] and lists [B].

    Args:
        value: any argument of the loss.
        keep: which pictures.
        layers_first: tensors of four dimensions are [layers, B, Q, ...], and not [B, layers, Q, ...].
    """
    count = len(keep)
    if isinstance(value, Tensor):
        axis = 1 if value.ndim == 4 and layers_first else 0
        if value.ndim > axis and value.shape[axis] == count:
            return value[:, keep] if axis else value[keep]
        return value
    if isinstance(value, list | tuple) and len(value) == count:
        return type(value)(one for one, kept in zip(value, keep.tolist(), strict=True) if kept)
    if isinstance(value, Mapping):  # of RT-DETR's denoising, which tells the pictures' queries apart in a list
        given = {name: rows_of_batch(one, keep, layers_first) for name, one in value.items() if name.endswith("idx")}
        return {**value, **given}
    return value
