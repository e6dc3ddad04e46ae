"""Classification of time series, and regression from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from datasets import Dataset
from transformers import PreTrainedConfig

from hf_transfer.data.time_series import series_shape, tell_scale, with_channels
from hf_transfer.data.wide_tables import joined_columns, with_joined_series, without_names
from hf_transfer.models import flowformer
from hf_transfer.tasks.arguments import DataArguments
from hf_transfer.tasks.task import Task


class SeriesTask(Task):
    """A task whose rows are series: `past_values` of [steps, channels], or [steps] of one channel, or a table with a
    column of numbers for every step."""

    reads = "time_series"
    input_column = "past_values"
    own_arguments = frozenset({"series_columns"})

    def arranged(self, rows: Dataset, arguments: DataArguments, role: str) -> Dataset:
        rows = with_channels(with_joined_series(rows, arguments.series_columns, arguments.label_column, role))
        if role.startswith("training"):
            tell_scale(rows)
        return rows

    def settled(self, data: DataArguments, rows: Dataset) -> DataArguments:
        """Other tables have the columns of the training rows."""
        names = joined_columns(rows)
        return data if names is None else replace(data, series_columns=names)

    def remember(self, model: Any, data: DataArguments, rows: Dataset) -> None:
        if (names := joined_columns(rows)) is not None:
            model.config.series_columns = names

    def remembered(self, config: PreTrainedConfig | None) -> dict[str, Any]:
        names = getattr(config, "series_columns", None)
        return {} if names is None else {"series_columns": names}

    def answers(self, rows: Dataset, ready: Dataset, outputs: Any, config: PreTrainedConfig) -> dict[str, list]:
        return super().answers(without_names(rows), ready, outputs, config)


class TimeSeriesClassification(SeriesTask):
    """One class, several labels or numbers of a series [steps, channels]; transformers has no Auto class for it."""

    name = "time-series-classification"
    auto_class = "FlowformerForTimeSeriesClassification"

    def model_class(self) -> Any:
        return getattr(flowformer, self.auto_class)

    def sizes(
        self, architecture: Mapping[str, Any], data: DataArguments, rows: list[Dataset], processor: Any
    ) -> dict[str, Any]:
        """The channels, and the longest length where the head reads all places in a row."""
        return series_sizes(architecture, rows)


def series_sizes(architecture: Mapping[str, Any], rows: list[Dataset]) -> dict[str, Any]:
    """The channels of a Flowformer's series, and the longest length where its head reads all places in a row."""
    if "past_values" not in rows[0].column_names or architecture.get("model_type") != "flowformer":
        return {}
    sizes = {"num_input_channels": series_shape(rows[0])[0]}
    if architecture.get("pooling") == "flatten":
        sizes["max_position_embeddings"] = max(series_shape(one)[1] for one in rows)
    return sizes
