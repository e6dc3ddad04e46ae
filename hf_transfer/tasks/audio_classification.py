"""Audio classification, and regression from sounds."""

from __future__ import annotations

import os
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import transformers
from datasets import Dataset
from transformers import PreTrainedConfig
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.utils import logging

from hf_transfer.data.columns import without_labels
from hf_transfer.data.sounds import VALUES, SoundCollator, least_samples, sound_columns, with_samples
from hf_transfer.modeling.processors import stored_processor
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.tasks.task import Task

logger = logging.get_logger(__name__)


class AudioClassification(Task):
    """One class, several labels or numbers of a sound. Rows keep one channel at the rate of the model's extractor.

    The states of a padded sound that are pooled are those that the model's own rule says are of real samples
    (`hf_transfer.modeling.masks`), in training and in ranking.
    """

    name = "audio-classification"
    reads = "audio"
    auto_class = "AutoModelForAudioClassification"
    input_column = VALUES
    saved_as = ("ForAudioClassification", "ForSequenceClassification")
    streams = False

    def load_processor(self, model: ModelArguments, config: PreTrainedConfig) -> Any:
        """The stored feature extractor, or one of the sizes of the configuration; None for a kind that has none."""
        try:
            if model.model is not None:
                return stored_processor("audio", model.model, **model.stored)
        except ValueError as error:
            logger.info(f"{model.model} has no feature extractor: {error}")
        name = FEATURE_EXTRACTOR_MAPPING_NAMES.get(config.model_type)
        if name is None:
            return None
        extractor = getattr(transformers, name)
        sizes = {key: getattr(config, key) for key in signature(extractor).parameters if hasattr(config, key)}
        return extractor(**sizes)

    def arranged(self, rows: Dataset, arguments: DataArguments, role: str) -> Dataset:
        columns = sound_columns(rows)
        if len(columns) > 1 or (not columns and VALUES not in rows.column_names):
            raise ValueError(
                f"found {len(columns)} columns of sounds in the {role} dataset, which has {rows.column_names}: give a "
                "folder of sounds, a table with one column of paths to them, or a dataset with one `Audio` column."
            )
        return rows

    def prepare(self, rows: Dataset, config: PreTrainedConfig, processor: Any, **reading: Any) -> Dataset:
        rows = rows if reading.get("keep_labels", True) else without_labels(rows)
        if VALUES in rows.column_names:
            return rows
        if not hasattr(processor, "sampling_rate"):
            raise ValueError("the rows hold sounds, and the model's folder has no feature extractor to read them.")
        ready = with_samples(rows, sound_columns(rows)[0], processor, least_samples(config))
        if "label" in ready.column_names and "labels" not in ready.column_names:
            ready = ready.rename_column("label", "labels")
        return ready.with_format("numpy")

    def collator(self, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable | None:
        if not hasattr(processor, "sampling_rate"):
            raise ValueError(f"{self.name} pads sounds by the model's feature extractor, and its folder has none.")
        return SoundCollator(processor)

    def answers(self, rows: Dataset, ready: Dataset, outputs: Any, config: PreTrainedConfig) -> dict[str, list]:
        table = super().answers(rows, ready, outputs, config)
        columns = sound_columns(rows)
        if not columns:
            return table
        paths = [Path(cell["path"] or "") for cell in rows.with_format(None)[columns[0]]]
        folder = Path(os.path.commonpath([path.parent for path in paths]))
        files = [path.relative_to(folder).as_posix() for path in paths]
        return {"row": table.pop("row"), "file": files, **table}
