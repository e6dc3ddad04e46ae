"""Key points: where named points of the thing in a picture are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import Dataset, Image
from transformers import EvalPrediction, PreTrainedConfig, ViTImageProcessorPil
from transformers.utils import logging

from hf_transfer.core.task_loss import REGRESSION
from hf_transfer.data.images import undecoded
from hf_transfer.data.keypoints import (
    arranged_points,
    point_column,
    point_labels,
    seen_anywhere,
    unknown_points,
    with_point_shares,
    with_points,
)
from hf_transfer.data.label_columns import LabelColumn
from hf_transfer.data.labels import LabelKind
from hf_transfer.data.masks import named_classes, size_of
from hf_transfer.data.part_tables import with_part_tables
from hf_transfer.evaluation.keypoints import KEYPOINT_METRICS, keypoint_metrics, point_figures
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.tasks.image import ImageTask
from hf_transfer.tasks.image_segmentation import named_column, refuse_classes_of_rows
from hf_transfer.tasks.task import Metrics

logger = logging.get_logger(__name__)


class KeypointDetection(ImageTask):
    """Pictures of one thing each, and the places of its points: a column `keypoints`.

    A heat map for each point, by `heatmap-keypoints` on any image model of transformers, or by ViTPose.
    """

    name = "keypoint-detection"
    auto_class = "AutoModelForKeypointDetection"
    saved_as = ("ForKeypointDetection", "ForPoseEstimation")
    labels_parts_of_images = True
    head_on_backbone = "heatmap-keypoints"
    own_arguments = frozenset({"id2label"})

    def load_processor(self, model: ModelArguments, config: PreTrainedConfig) -> Any:
        """The stored image processor; for ViTPose, whose own cuts boxes out, a plain one of its size."""
        size = getattr(getattr(config, "backbone_config", None), "image_size", None)
        if config.model_type != "vitpose" or size is None:
            return super().load_processor(model, config)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return ViTImageProcessorPil(size={"height": height, "width": width})

    def claims(self, rows: Dataset) -> bool:
        return point_column(rows) is not None

    def arranged(self, rows: Dataset, arguments: DataArguments, role: str) -> Dataset:
        if "pixel_values" in rows.column_names:
            return rows
        refuse_classes_of_rows(self.name, arguments)
        return arranged_points(rows, role, named_column(rows, arguments, role))

    def label_column(self, arguments: DataArguments) -> str | None:
        return None

    def read_labels(self, rows: Dataset, role: str, arguments: DataArguments) -> tuple[Dataset, LabelKind]:
        names = None if arguments.id2label is None else named_classes(rows, arguments.id2label)
        kind = point_labels(rows, role, names)
        rows = with_point_shares(rows, kind.outputs, role)
        seen = seen_anywhere(rows)
        if not seen.any():
            raise ValueError(
                f"no key point of the {role} rows is seen: `visible` is 0 throughout, and there is nothing to learn "
                "from. Check it, or take other rows."
            )
        missing = [name for name, is_seen in zip(kind.class_names or (), seen, strict=True) if not is_seen]
        if missing:
            logger.warning(
                f"the key points {missing[:10]} are seen in none of the {role} rows: a model cannot learn these there."
            )
        return rows, kind

    def model_labels(self, config: PreTrainedConfig, rows: Dataset) -> LabelKind:
        return LabelKind(REGRESSION, config.num_labels, tuple(point_names(config)))

    def read_labels_as(
        self, rows: Dataset, kind: LabelKind, role: str, column: LabelColumn = None, source: str = "the model"
    ) -> Dataset:
        return with_point_shares(rows, kind.outputs, role)

    def as_given(self, rows: Dataset, kind: LabelKind) -> Dataset:
        return with_points(rows)

    def prepare(self, rows: Dataset, config: PreTrainedConfig, processor: Any, **reading: Any) -> Dataset:
        if "pixel_values" in rows.column_names:
            return rows
        unknown = unknown_points(config.num_labels)
        return with_part_tables(rows, config, processor, unknown, reading.get("keep_labels", True))

    def collator(self, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable | None:
        return None

    def label_metrics(self, config: PreTrainedConfig) -> Callable[[EvalPrediction], Metrics]:
        return KeypointMetrics()

    def metric_names(self, config: PreTrainedConfig) -> tuple[str, ...]:
        return KEYPOINT_METRICS

    def answers(self, rows: Dataset, ready: Dataset, outputs: Any, config: PreTrainedConfig) -> dict[str, list]:
        """A line for every point, in pixels of its picture."""
        names = point_names(config)
        image = next(name for name, feature in rows.features.items() if isinstance(feature, Image))
        sides = np.array([size_of(cell) for cell in undecoded(rows, image)[image]])  # [N, 2]
        places = np.asarray(outputs)[..., :2] * sides[:, None]
        return {
            "row": np.repeat(np.arange(len(rows)), len(names)).tolist(),
            "prediction": names * len(rows),
            "x": places[..., 0].flatten().tolist(),
            "y": places[..., 1].flatten().tolist(),
            "probability": np.asarray(outputs)[..., 2].flatten().tolist(),
        }


class KeypointMetrics:
    """`compute_metrics` of places [N, K, 2 or more] and true ones [N, K, 2]."""

    def __call__(self, prediction: EvalPrediction) -> Metrics:
        return keypoint_metrics(prediction.predictions, prediction.label_ids)

    def class_figures(self, prediction: EvalPrediction, config: Any) -> dict[str, dict[str, float]]:
        """The same of each point."""
        return point_figures(prediction.predictions, prediction.label_ids, point_names(config))


def point_names(config: PreTrainedConfig) -> list[str]:
    return [str(config.id2label[index]) for index in range(config.num_labels)]
