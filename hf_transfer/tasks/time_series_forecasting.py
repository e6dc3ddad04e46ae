"""Time-series forecasting: the next steps of all channels of a series, as the numbers of a linear head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from torch import Tensor
from transformers import EvalPrediction, PreTrainedConfig

from hf_transfer.core.task_loss import REGRESSION
from hf_transfer.data.collators import PaddingCollator
from hf_transfer.data.forecasts import FUTURE, PAST, windows_of, with_flat_future
from hf_transfer.data.labels import LabelKind, read_labels
from hf_transfer.data.time_series import series_shape
from hf_transfer.evaluation.forecasts import forecast_metrics
from hf_transfer.modeling.series_models import AutoModelForSeries
from hf_transfer.tasks.arguments import DataArguments
from hf_transfer.tasks.task import Metrics, Task


class TimeSeriesForecasting(Task):
    """H steps of C channels, H * C numbers of a row, trained by the squared error as a regression is."""

    name = "time-series-forecasting"
    reads = "time_series"
    auto_class = "AutoModelForSeries"
    input_column = PAST
    own_arguments = frozenset({"forecasting"})
    streams = False
    metrics_read_inputs = True

    def model_class(self) -> Any:
        return AutoModelForSeries

    def arranged(self, rows: Dataset, arguments: DataArguments, role: str) -> Dataset:
        if FUTURE in rows.column_names and PAST in rows.column_names:
            return with_flat_future(rows, role)
        if PAST in rows.column_names:
            return rows
        if arguments.test_rows and role.startswith("training"):
            raise ValueError(
                "windows of one table overlap, so that random ones of them are no test: leave `test_rows` out and "
                "give the later steps as `test_dataset`."
            )
        return windows_of(rows, arguments.forecasting, role)

    def read_labels(self, rows: Dataset, role: str, arguments: DataArguments) -> tuple[Dataset, LabelKind]:
        return read_labels(rows, role, arguments.label_column, REGRESSION)

    def sizes(
        self, architecture: Mapping[str, Any], data: DataArguments, rows: list[Dataset], processor: Any
    ) -> dict[str, Any]:
        """The channels, and the length of the past where the head reads all of it in a row."""
        channels, longest = series_shape(rows[0])
        sizes = {"num_input_channels": channels}
        if architecture.get("model_type") == "patchtst":
            return {**sizes, "context_length": longest}
        return {**sizes, "max_position_embeddings": longest} if architecture.get("pooling") == "flatten" else sizes

    def prepare(self, rows: Dataset, config: PreTrainedConfig, processor: Any, **reading: Any) -> Dataset:
        ready = super().prepare(rows, config, processor, **reading)
        lengths = sorted({len(series) for series in ready.with_format(None)[PAST]})
        wanted = config.context_length if config.model_type == "patchtst" else lengths[0]
        if lengths != [wanted]:
            raise ValueError(
                f"the past of every row should have as many steps, for this {config.model_type} model {wanted}; the "
                f"rows have {lengths[:5]}."
            )
        return ready

    def collator(self, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable | None:
        return PastCollator(PAST)

    def label_metrics(self, config: PreTrainedConfig) -> Callable[[EvalPrediction], Metrics]:
        def compute(prediction: EvalPrediction) -> Metrics:
            return forecast_metrics(prediction.predictions, prediction.label_ids, prediction.inputs)

        return compute

    def metric_names(self, config: PreTrainedConfig) -> tuple[str, ...]:
        return ("mean_squared_error", "mean_absolute_error", "mean_absolute_scaled_error")

    def answers(self, rows: Dataset, ready: Dataset, outputs: Any, config: PreTrainedConfig) -> dict[str, list]:
        """A line for every step and channel of every row."""
        values = np.asarray(outputs, dtype=np.float32)
        channels = getattr(config, "num_input_channels", 1)
        row, number = (index.flatten() for index in np.indices(values.shape))
        return {
            "row": row.tolist(),
            "step": (number // channels).tolist(),
            "channel": (number % channels).tolist(),
            "prediction": values.flatten().tolist(),
        }


@dataclass(frozen=True)
class PastCollator(PaddingCollator):
    """As its base, without a mask: all series are of one length, and some models know no such input."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        return {name: value for name, value in super().__call__(rows).items() if name != "attention_mask"}
