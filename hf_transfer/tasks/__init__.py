"""The tasks a run may have, by the Hub's names for them. A new one is a file here and a line in `TASKS`."""

from __future__ import annotations

from hf_transfer.tasks.audio_classification import AudioClassification
from hf_transfer.tasks.fill_mask import FillMask
from hf_transfer.tasks.image_classification import ImageClassification
from hf_transfer.tasks.image_feature_extraction import ImageFeatureExtraction
from hf_transfer.tasks.image_segmentation import ImageSegmentation
from hf_transfer.tasks.keypoint_detection import KeypointDetection
from hf_transfer.tasks.masked_image_modeling import MaskedImageModeling
from hf_transfer.tasks.object_detection import ObjectDetection
from hf_transfer.tasks.offline_reinforcement_learning import OfflineReinforcementLearning
from hf_transfer.tasks.pixels import CausalImageModeling, MaskedPixelModeling
from hf_transfer.tasks.task import Task
from hf_transfer.tasks.text2text_generation import Text2TextGeneration
from hf_transfer.tasks.text_classification import TextClassification
from hf_transfer.tasks.text_generation import TextGeneration
from hf_transfer.tasks.time_series_classification import TimeSeriesClassification
from hf_transfer.tasks.time_series_forecasting import TimeSeriesForecasting
from hf_transfer.tasks.time_series_pretraining import (
    MaskedTimeSeriesModeling,
    NextStepPrediction,
    TimeSeriesFeatureExtraction,
    TrajectoryPretraining,
)
from hf_transfer.tasks.token_classification import TokenClassification
from hf_transfer.tasks.zero_shot_image_classification import ZeroShotImageClassification

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        ImageClassification(),
        TextClassification(),
        TokenClassification(),
        ImageSegmentation(),
        ObjectDetection(),
        KeypointDetection(),
        AudioClassification(),
        TimeSeriesClassification(),
        TimeSeriesForecasting(),
        MaskedImageModeling(),
        CausalImageModeling(),
        MaskedPixelModeling(),
        ImageFeatureExtraction(),
        FillMask(),
        TextGeneration(),
        Text2TextGeneration(),
        OfflineReinforcementLearning(),
        TimeSeriesFeatureExtraction(),
        MaskedTimeSeriesModeling(),
        NextStepPrediction(),
        TrajectoryPretraining(),
        ZeroShotImageClassification(),
    )
}
"""Name -> task."""
MAIN_TASKS: dict[str, Task] = {}
"""Kind of input -> the first task of rows that have labels; of trajectories, their only one."""
for _task in TASKS.values():
    if _task.reads_labels or _task.reads == "trajectory":
        MAIN_TASKS.setdefault(_task.reads, _task)


def task_named(name: str) -> Task:
    """The task of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task `{name}`, accepted: {sorted(TASKS)}.")
    return TASKS[name]


def tasks_with_labels() -> list[str]:
    """Names of the tasks whose rows have labels."""
    return [name for name, task in TASKS.items() if task.reads_labels]
