"""The tasks a run may have, by the Hub's names for them. A new one is a file here and a line in `TASKS`."""

from __future__ import annotations

from collections.abc import Iterable

from datasets import Dataset

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
from hf_transfer.tasks.prompted_image_classification import PromptedImageClassification
from hf_transfer.tasks.question_answering import QuestionAnswering
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
        QuestionAnswering(),
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
        PromptedImageClassification(),
    )
}
"""Name -> task."""
MAIN_TASKS: dict[str, Task] = {}
"""Kind of input -> the first task of rows that have labels; of trajectories, their only one."""
OTHER_NAMES = {
    "masked-language-modeling": "fill-mask",
    "masked-lm": "fill-mask",
    "mlm": "fill-mask",
    "causal-language-modeling": "text-generation",
    "language-modeling": "text-generation",
    "causal-lm": "text-generation",
    "clm": "text-generation",
    "sequence-to-sequence-language-modeling": "text2text-generation",
    "seq2seq-lm": "text2text-generation",
    "sequence-classification": "text-classification",
    "named-entity-recognition": "token-classification",
    "ner": "token-classification",
    "semantic-segmentation": "image-segmentation",
}
"""What transformers' documentation and classes call tasks -> what the Hub and `TASKS` call them."""
for _task in TASKS.values():
    if _task.reads_labels or _task.reads == "trajectory":
        MAIN_TASKS.setdefault(_task.reads, _task)


def task_named(name: str) -> Task:
    """The task of a name.

    Raises:
        ValueError: there is none.
    """
    if name in OTHER_NAMES:
        raise ValueError(f"the task {name} is called {OTHER_NAMES[name]}, as on the Hub: write that name.")
    if name not in TASKS:
        raise ValueError(f"unknown task `{name}`, accepted: {sorted(TASKS)}.")
    return TASKS[name]


def tasks_with_labels() -> list[str]:
    """Names of the tasks whose rows have labels."""
    return [name for name, task in TASKS.items() if task.reads_labels]


def claimed_by(rows: Dataset, among: Iterable[Task]) -> str | None:
    """Name of the first task whose labels these rows hold, as it says itself (`Task.claims`); None where none does."""
    return next((task.name for task in among if task.claims(rows)), None)
