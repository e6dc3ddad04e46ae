"""Time-series forecasting: the next steps of all channels of a series, as the numbers of a linear head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import EvalPrediction, PreTrainedConfig

from hf_transfer.core.task_loss import REGRESSION
from hf_transfer.data.collators import PaddingCollator
from hf_transfer.data.forecasts import (
    FUTURE,
    PAST,
    SERIES_NAME,
    channel_names,
    last_windows,
    later_windows,
    scale_of,
    standardised,
    windows_of,
    with_flat_future,
)
from hf_transfer.data.labels import LabelKind, read_labels
from hf_transfer.data.time_series import series_shape, with_channels
from hf_transfer.evaluation.forecasts import forecast_metrics
from hf_transfer.modeling.series_models import AutoModelForSeries
from hf_transfer.tasks.arguments import DataArguments
from hf_transfer.tasks.task import Metrics, Task

SETTINGS = "forecasting"
"""Of the arguments of the data, and of the configuration of a model that was trained on a table."""
SCALE = ("mean", "deviation")


class TimeSeriesForecasting(Task):
    """H steps of C channels, H * C numbers of a row, trained by the squared error as a regression is.

    A model that was trained on a table knows how it was cut into windows, and tells values as tables have them.
    """

    name = "time-series-forecasting"
    reads = "time_series"
    auto_class = "AutoModelForSeries"
    input_column = PAST
    own_arguments = frozenset({"forecasting"})
    streams = False
    metrics_read_inputs = True

    def model_class(self) -> Any:
        return AutoModelForSeries

    def remember(self, model: Any, data: DataArguments, rows: Dataset) -> None:
        """How windows were cut of a table, and the mean and deviation that standardise each channel."""
        if channel_names(rows) is None:
            return
        settings = dict(self.settled(data, rows).forecasting or {})
        standardises = settings.get("standardise", True)
        scale = scale_of(rows) if standardises else {}
        if isinstance(model, PeftModel):
            scale = scale_of_base(model.config, standardises)
        model.config.forecasting = {**settings, **scale}

    def settled(self, data: DataArguments, rows: Dataset) -> DataArguments:
        names = channel_names(rows)
        return data if names is None else replace(data, forecasting={**(data.forecasting or {}), "columns": names})

    def remembered(self, config: PreTrainedConfig | None) -> dict[str, Any]:
        kept = getattr(config, SETTINGS, None)
        return {} if kept is None else {SETTINGS: {key: kept[key] for key in kept if key not in SCALE}}

    def arranged(self, rows: Dataset, arguments: DataArguments, role: str) -> Dataset:
        if PAST in rows.column_names:
            rows = with_channels(rows)
            return with_flat_future(rows, role) if FUTURE in rows.column_names else rows
        if arguments.label_column is not None:
            raise ValueError(
                "the labels of a table of steps are its own next steps: leave `label_column` out; `forecasting: "
                "{columns: [...]}` names channels."
            )
        if role.startswith("prediction"):
            return last_windows(rows, arguments.forecasting, role)
        return windows_of(rows, arguments.forecasting, role)

    def hold_out(
        self, rows: Dataset, count: int, arguments: DataArguments, role: str
    ) -> tuple[Dataset, Dataset, tuple[int, ...]] | None:
        """The last windows of a table: random ones would overlap with those that are left."""
        if channel_names(rows) is None:
            return None
        return later_windows(rows, count, arguments.forecasting, role)

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

    def in_units_of(self, config: PreTrainedConfig, rows: Dataset) -> Dataset:
        """Deviations from the mean of each channel of the training table, where it was standardised."""
        scale = getattr(config, SETTINGS, None) or {}
        return standardised(rows, scale) if "mean" in scale else rows

    def prepare(self, rows: Dataset, config: PreTrainedConfig, processor: Any, **reading: Any) -> Dataset:
        ready = super().prepare(self.in_units_of(config, rows), config, processor, **reading)
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
        kept = getattr(config, SETTINGS, None) or {}
        if "mean" in kept:
            values = values.reshape(len(values), -1, channels) * np.asarray(kept["deviation"]) + kept["mean"]
            values = values.reshape(len(values), -1)
        row, number = (index.flatten() for index in np.indices(values.shape))
        names = channel_names(rows) or range(channels)
        series = rows[SERIES_NAME][:] if SERIES_NAME in rows.column_names else None
        return {
            "row": row.tolist(),
            **({} if series is None else {SERIES_NAME: [series[index] for index in row]}),
            "step": (number // channels).tolist(),
            "channel": [names[index] for index in number % channels],
            "prediction": values.flatten().tolist(),
        }


@dataclass(frozen=True)
class PastCollator(PaddingCollator):
    """As its base, without a mask: all series are of one length, and some models know no such input."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        return {name: value for name, value in super().__call__(rows).items() if name != "attention_mask"}


def scale_of_base(config: PreTrainedConfig, standardises: bool) -> dict[str, list[float]]:
    """The mean and deviation by which the base of an adapter reads tables, empty where it reads values as they are.

    Args:
        config: of the base.
        standardises: whether the adapter's table should be standardised.

    Raises:
        ValueError: it should, and the base does not, or the other way round.
    """
    known = getattr(config, SETTINGS, None) or {}
    if standardises and "mean" not in known:
        raise ValueError(
            "an adapter has no place for the mean and deviation of a table's channels: adapt the whole model first, "
            "or read the values as they are by `forecasting: {standardise: false}`."
        )
    if "mean" in known and not standardises:
        raise ValueError(
            "the adapter's base standardises tables by the mean and deviation of its own training, and the adapter "
            "does so too: leave `standardise: false` out of `forecasting`."
        )
    return {name: known[name] for name in SCALE if name in known}
