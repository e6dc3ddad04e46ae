"""Semantic segmentation: a class for every pixel of a picture."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from PIL import Image as PILImage
from torch import Tensor
from transformers import EvalPrediction, PreTrainedConfig, SegformerImageProcessorPil
from transformers.utils import logging

from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.data.images import undecoded
from hf_transfer.data.label_columns import LabelColumn
from hf_transfer.data.labels import LabelKind
from hf_transfer.data.maps import with_maps
from hf_transfer.data.masks import (
    CLASSES_COLUMN,
    IGNORED_VALUE,
    arranged_masks,
    check_class_names,
    check_renamed,
    ignored_number,
    mask_column,
    masks_as,
    named_classes,
    read_mask_labels,
    size_of,
    with_ignored_value,
    without_classes,
)
from hf_transfer.evaluation.segmentation import (
    SEGMENTATION_METRICS,
    confusions,
    pixel_figures,
    segmentation_metrics,
)
from hf_transfer.modeling.label_forms import ignored_class
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.tasks.image import ImageTask
from hf_transfer.tasks.task import Metrics

logger = logging.get_logger(__name__)

IGNORED_NUMBER = "mask_ignore_index"
"""Of the configuration of a model: the number of its training masks that means no class, where it is not 255."""


class ImageSegmentation(ImageTask):
    """Pictures with masks: a column of each, a table of two paths, or two folders with files of the same names.

    The model reads pictures of one size, and metrics are of maps of that size.
    """

    name = "image-segmentation"
    auto_class = "AutoModelForSemanticSegmentation"
    saved_as = ("ForSemanticSegmentation",)
    labels_parts_of_images = True
    head_on_backbone = "upernet"
    tells_by_pictures = True
    own_arguments: ClassVar[frozenset[str]] = frozenset({"id2label", "ignore_index"})

    def load_processor(self, model: ModelArguments, config: PreTrainedConfig) -> Any:
        """The stored image processor, or one of the model's size that transformers' pipelines can use."""
        plain = super().load_processor(model, config)
        return same_size(plain, SegformerImageProcessorPil)

    def claims(self, rows: Dataset) -> bool:
        return mask_column(rows) is not None

    def remember(self, model: Any, data: DataArguments, rows: Dataset) -> None:
        """The number of masks that means no class, without which it would be measured as a class."""
        if data.ignore_index in (None, IGNORED_VALUE):
            return
        setattr(model.config, IGNORED_NUMBER, data.ignore_index)

    def remembered(self, config: PreTrainedConfig | None) -> dict[str, Any]:
        ignored = getattr(config, IGNORED_NUMBER, None)
        return {} if ignored is None else {"ignore_index": ignored, "id2label": dict(config.id2label)}

    def arranged(self, rows: Dataset, arguments: DataArguments, role: str) -> Dataset:
        if "pixel_values" in rows.column_names:
            return rows
        refuse_classes_of_rows(self.name, arguments)
        rows = arranged_masks(rows, role, named_column(rows, arguments, role))
        if "labels" not in rows.column_names:
            return rows
        ignored = IGNORED_VALUE if arguments.ignore_index is None else arguments.ignore_index
        if role.startswith("training"):
            check_renamed(rows, arguments.id2label)
            rows = with_ignored_value(rows, ignored, arguments.id2label)
            return without_classes(rows) if arguments.id2label is not None else rows
        # the names of these rows say which of their numbers the training masks ignore
        return with_ignored_value(rows, ignored_number(rows, ignored, arguments.id2label))

    def settled(self, data: DataArguments, rows: Dataset) -> DataArguments:
        """With the names of the classes of the training masks, by which `ignore_index` names one of other rows."""
        names = named_classes(rows, data.id2label)
        return data if names is None else replace(data, id2label=dict(enumerate(names)))

    def label_column(self, arguments: DataArguments) -> str | None:
        return None

    def read_labels(self, rows: Dataset, role: str, arguments: DataArguments) -> tuple[Dataset, LabelKind]:
        return read_mask_labels(rows, role, arguments.id2label)

    def model_labels(self, config: PreTrainedConfig, rows: Dataset) -> LabelKind:
        names = tuple(str(config.id2label[place]) for place in range(config.num_labels))
        return LabelKind(SINGLE_LABEL, config.num_labels, names)

    def read_labels_as(
        self, rows: Dataset, kind: LabelKind, role: str, column: LabelColumn = None, source: str = "the model"
    ) -> Dataset:
        return masks_as(rows, kind, role, source)

    def check_domains(
        self, source: Dataset, target: Dataset, kind: LabelKind | None, made_for: Collection[str]
    ) -> None:
        check_class_names(target, kind, made_for)

    def prepare(self, rows: Dataset, config: PreTrainedConfig, processor: Any, **reading: Any) -> Dataset:
        keeps = reading.get("keep_labels", True)
        if "pixel_values" in rows.column_names:
            return rows
        return with_maps(rows, config, processor, ignored_class(config), keeps)

    def collator(self, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable | None:
        return None

    def reduced(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Counts of right and wrong pixels of every picture, [B, C, C], in place of its logits [B, C, h, w]."""
        return confusions(outputs, labels)

    def label_metrics(self, config: PreTrainedConfig) -> Callable[[EvalPrediction], Metrics]:
        return SegmentationMetrics()

    def metric_names(self, config: PreTrainedConfig) -> tuple[str, ...]:
        return SEGMENTATION_METRICS

    def answers(self, rows: Dataset, ready: Dataset, outputs: Any, config: PreTrainedConfig) -> dict[str, list]:
        """The share of each class of the pixels of every picture."""
        answers = np.asarray(outputs).argmax(axis=1).reshape(len(rows), -1)
        names = [str(config.id2label[place]) for place in range(config.num_labels)]
        shares = [(answers == place).mean(axis=1).tolist() for place in range(len(names))]
        return {"row": list(range(len(rows))), **dict(zip(names, shares, strict=True))}

    def files(self, rows: Dataset, outputs: Any, config: PreTrainedConfig) -> dict[str, PILImage.Image]:
        """A mask of every picture, of the picture's size."""
        image = next(name for name in rows.column_names if name not in ("labels", "domain", CLASSES_COLUMN))
        made = {}
        for place, cell in enumerate(undecoded(rows, image)[image]):
            width, height = size_of(cell)
            logits = torch.as_tensor(np.asarray(outputs[place]), dtype=torch.float32).unsqueeze(0)
            maps = torch.nn.functional.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
            values = maps.argmax(dim=1)[0].numpy()
            made[f"{place}.png"] = PILImage.fromarray(values.astype(np.uint8 if values.max() < 256 else np.uint16))
        return made


class SegmentationMetrics:
    """`compute_metrics` of counts of pixels, [N, C, C]."""

    def __call__(self, prediction: EvalPrediction) -> Metrics:
        return segmentation_metrics(np.asarray(prediction.predictions).sum(axis=0))

    def class_figures(self, prediction: EvalPrediction, config: Any) -> dict[str, dict[str, float]]:
        """Precision, recall and F1 of the pixels of each class."""
        names = [str(config.id2label[place]) for place in range(config.num_labels)]
        return pixel_figures(np.asarray(prediction.predictions).sum(axis=0), names)


def named_column(rows: Dataset, arguments: DataArguments, role: str) -> str | None:
    """The column of labels that the user names; of rows that may have no labels only where it is there."""
    is_there = arguments.label_column in rows.column_names
    return arguments.label_column if is_there or role.startswith("training") else None


def refuse_classes_of_rows(task: str, arguments: DataArguments) -> None:
    """Raises ValueError for arguments that choose rows by their class, which parts of pictures have not."""
    for name in ("labels_per_class", "dat", "problem_type"):
        if getattr(arguments, name) is not None:
            raise ValueError(
                f"`{name}` is of rows with a class or a number each, and {task} labels parts of pictures: leave it "
                "out; `max_samples` trains on fewer rows."
            )


def same_size(processor: Any, cls: type, **options: Any) -> Any:
    """A plain image processor as one of another class, with the same size and normalisation; others as they are."""
    if type(processor).__name__ != "ViTImageProcessorPil":
        return processor
    kept = {name: getattr(processor, name) for name in ("image_mean", "image_std", "do_convert_rgb")}
    size = processor.size if isinstance(processor.size, dict) else dict(processor.size)
    return cls(size=size, **kept, **options)
