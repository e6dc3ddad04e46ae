"""Object detection: boxes around things in a picture, and what each of them is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Image
from transformers import CONFIG_MAPPING, DetrImageProcessorPil, EvalPrediction, PreTrainedConfig
from transformers.utils import logging

from hf_transfer.core.task_loss import MULTI_LABEL, SINGLE_LABEL
from hf_transfer.data.images import undecoded
from hf_transfer.data.label_columns import LabelColumn
from hf_transfer.data.labels import LabelKind
from hf_transfer.data.masks import size_of
from hf_transfer.data.objects import (
    NO_OBJECT,
    ObjectCollator,
    arranged_objects,
    check_categories,
    object_column,
    object_labels,
    unknown_table,
    with_objects,
    with_tables,
)
from hf_transfer.data.part_tables import with_part_tables
from hf_transfer.evaluation.detection import (
    DETECTION_METRICS,
    MOST_BOXES,
    Boxes,
    class_figures,
    corners_of,
    mean_average_precision,
)
from hf_transfer.modeling.named_backbones import BACKBONE
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.tasks.image import ImageTask, backbone_processor
from hf_transfer.tasks.image_segmentation import named_column, refuse_classes_of_rows, same_size
from hf_transfer.tasks.task import Metrics

logger = logging.get_logger(__name__)

FREEZES = "freeze_backbone_batch_norms"
"""Field of the configurations of RT-DETR, D-FINE and others."""
LEAST_SCORE = 0.3
"""A box of a smaller score is no answer."""


class ObjectDetection(ImageTask):
    """Pictures with boxes: a column `objects`, as `datasets`' image folders have it, or a COCO-style json file.

    The model reads pictures of one size, whatever their shape, so that none is padded.
    """

    name = "object-detection"
    auto_class = "AutoModelForObjectDetection"
    saved_as = ("ForObjectDetection",)
    labels_parts_of_images = True
    unit_type = SINGLE_LABEL  # queries, each of one class or of none

    def sizes(
        self, architecture: Mapping[str, Any], data: DataArguments, rows: list[Dataset], processor: Any
    ) -> dict[str, Any]:
        """Batch norms of a backbone of random weights are trained: frozen ones would keep the mean 0 and variance 1
        that they begin with, and normalise nothing."""
        kind, is_random = architecture.get("model_type"), not isinstance(architecture.get(BACKBONE), str)
        can_be_told = kind in CONFIG_MAPPING and hasattr(CONFIG_MAPPING[kind](), FREEZES)
        return {FREEZES: False} if is_random and can_be_told else {}

    def load_processor(self, model: ModelArguments, config: PreTrainedConfig) -> Any:
        """The stored image processor, made to give pictures of one size; or one of the model's size."""
        stored = super().load_processor(model, config) if model.model is not None else None
        if stored is not None:
            return of_one_size(stored)
        size = getattr(config, "image_size", None)
        if (of_backbone := backbone_processor(model, config)) is not None:
            return same_size(of_backbone, DetrImageProcessorPil, do_pad=False)
        if size is None:
            return None
        height, width = size if isinstance(size, list | tuple) else (size, size)
        means = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        return DetrImageProcessorPil(size={"height": height, "width": width}, do_pad=False, **means)

    def claims(self, rows: Dataset) -> bool:
        return object_column(rows) is not None

    def arranged(self, rows: Dataset, arguments: DataArguments, role: str) -> Dataset:
        if "pixel_values" in rows.column_names:
            return rows
        refuse_classes_of_rows(self.name, arguments)
        return arranged_objects(rows, role, named_column(rows, arguments, role))

    def label_column(self, arguments: DataArguments) -> str | None:
        return None

    def read_labels(self, rows: Dataset, role: str, arguments: DataArguments) -> tuple[Dataset, LabelKind]:
        kind = object_labels(rows)
        rows = with_tables(rows, kind, role)
        found = {int(line[0]) for table in rows.with_format(None)["labels"] for line in table}
        missing = [name for place, name in enumerate(kind.class_names or ()) if place not in found]
        if found <= {NO_OBJECT}:
            raise ValueError(
                f"no picture of the {role} rows has an object: there is nothing to learn from. Check the annotations, "
                "whose crowds are left out, or take other rows."
            )
        if missing:
            logger.warning(f"no object of the {role} rows is of {missing[:10]}: a model cannot learn these there.")
        return rows, kind

    def model_labels(self, config: PreTrainedConfig, rows: Dataset) -> LabelKind:
        return LabelKind(MULTI_LABEL, config.num_labels, tuple(class_names(config)))

    def read_labels_as(
        self, rows: Dataset, kind: LabelKind, role: str, column: LabelColumn = None, source: str = "the model"
    ) -> Dataset:
        return with_tables(rows, kind, role, source)

    def as_given(self, rows: Dataset, kind: LabelKind) -> Dataset:
        return with_objects(rows, kind.class_names or ())

    def check_domains(
        self, source: Dataset, target: Dataset, kind: LabelKind | None, made_for: Collection[str]
    ) -> None:
        check_categories(target, kind, made_for)

    def prepare(self, rows: Dataset, config: PreTrainedConfig, processor: Any, **reading: Any) -> Dataset:
        if "pixel_values" in rows.column_names:
            return rows
        return with_part_tables(rows, config, processor, unknown_table(), reading.get("keep_labels", True))

    def collator(self, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable | None:
        return ObjectCollator()

    def label_metrics(self, config: PreTrainedConfig) -> Callable[[EvalPrediction], Metrics]:
        return DetectionMetrics(config.num_labels)

    def metric_names(self, config: PreTrainedConfig) -> tuple[str, ...]:
        return DETECTION_METRICS

    def answers(self, rows: Dataset, ready: Dataset, outputs: Any, config: PreTrainedConfig) -> dict[str, list]:
        """A line for every box of at least `LEAST_SCORE`, in pixels of its picture."""
        names = class_names(config)
        image = next(name for name, feature in rows.features.items() if isinstance(feature, Image))
        columns = ("row", "prediction", "probability", "x", "y", "width", "height")
        table: dict[str, list] = {name: [] for name in columns}
        cells = undecoded(rows, image)[image]
        for row, (cell, found) in enumerate(zip(cells, scored_boxes(outputs, len(names)), strict=True)):
            width, height = size_of(cell)
            corners = np.clip(found.corners, 0, 1) * np.array([width, height, width, height])
            for (left, top, right, bottom), kind, score in zip(corners, found.classes, found.scores, strict=True):
                if score >= LEAST_SCORE:
                    line = (row, names[kind], float(score), left, top, right - left, bottom - top)
                    for name, value in zip(columns, line, strict=True):
                        table[name].append(value)
        return table


class DetectionMetrics:
    """`compute_metrics` of scores and boxes of queries [N, Q, C + 4] and true objects [N, M, 5].

    Args:
        classes: how many there are.
    """

    def __init__(self, classes: int):
        self.classes = classes

    def __call__(self, prediction: EvalPrediction) -> Metrics:
        return mean_average_precision(*self.boxes_of(prediction))

    def boxes_of(self, prediction: EvalPrediction) -> tuple[list[Boxes], list[Boxes]]:
        """The predicted and the true boxes of every picture whose boxes are known."""
        tables = np.asarray(prediction.label_ids)
        known = ~(tables == -100).all(axis=(1, 2))
        predicted = scored_boxes(np.asarray(prediction.predictions)[known], self.classes)
        return predicted, [true_boxes(table) for table in tables[known]]

    def class_figures(self, prediction: EvalPrediction, config: Any) -> dict[str, dict[str, float]]:
        """The average precisions of each class; precision and recall would depend on a score."""
        return class_figures(*self.boxes_of(prediction), class_names(config))


def scored_boxes(outputs: Any, classes: int) -> list[Boxes]:
    """The best boxes of every picture, by what a detector gives for its queries, [N, Q, C + 4].

    A detector with a score for no object gives each query one class; another may give it several.

    Args:
        outputs: scores and boxes.
        classes: C without the one for no object.
    """
    outputs = torch.as_tensor(np.asarray(outputs)).float()
    scores, corners = outputs[..., :-4], corners_of(outputs[..., -4:].numpy())
    if scores.shape[-1] > classes:
        best, kinds = scores.softmax(dim=-1)[..., :classes].max(dim=-1)
        return [Boxes(*one) for one in zip(corners, kinds.numpy(), best.numpy(), strict=True)]
    most = min(MOST_BOXES, scores.shape[1] * classes)
    values, places = scores.sigmoid().flatten(1).topk(most, dim=1)
    queries, kinds = (places // classes).numpy(), (places % classes).numpy()
    return [
        Boxes(corner[query], kind, value)
        for corner, query, kind, value in zip(corners, queries, kinds, values.numpy(), strict=True)
    ]


def true_boxes(table: np.ndarray) -> Boxes:
    """The objects of a table [M, 5]."""
    table = table[table[:, 0] >= 0]
    return Boxes(corners_of(table[:, 1:]), table[:, 0].astype(int))


def class_names(config: PreTrainedConfig) -> list[str]:
    return [str(config.id2label[index]) for index in range(config.num_labels)]


def of_one_size(processor: Any) -> Any:
    """The image processor, which makes every picture a square where it would keep its shape."""
    size = dict(processor.size)
    edge = size.get("shortest_edge") or size.get("longest_edge")
    if edge is None:
        return processor
    logger.warning(f"pictures are resized to {edge} x {edge} pixels, whatever their shape.")
    processor.size, processor.do_pad = {"height": edge, "width": edge}, False
    return processor
