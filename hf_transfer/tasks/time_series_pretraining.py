"""Pre-training on series and trajectories without labels: hidden steps, next steps, or features of two views."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from datasets import Dataset

from hf_transfer.data.masked_steps import MaskedStepsCollator
from hf_transfer.models import flowformer
from hf_transfer.tasks.arguments import DataArguments
from hf_transfer.tasks.offline_reinforcement_learning import OfflineReinforcementLearning
from hf_transfer.tasks.task import Metrics
from hf_transfer.tasks.time_series_classification import SeriesTask, series_sizes

MASKED_STEPS = "masked_steps"


class TimeSeriesFeatureExtraction(SeriesTask):
    """A vector of a series: a backbone without a head, trained by objectives that compare two views (simclr, moco)."""

    name = "time-series-feature-extraction"
    auto_class = "AutoModel"
    reads_labels = False

    def sizes(
        self, architecture: Mapping[str, Any], data: DataArguments, rows: list[Dataset], processor: Any
    ) -> dict[str, Any]:
        """The channels."""
        return series_sizes(architecture, rows)


class TimeSeriesPretraining(TimeSeriesFeatureExtraction):
    """What masked and next steps share: the head, which transformers has no Auto class for."""

    auto_class = "FlowformerForTimeSeriesPretraining"

    def model_class(self) -> Any:
        return getattr(flowformer, self.auto_class)


class MaskedTimeSeriesModeling(TimeSeriesPretraining):
    """Steps hidden by chance, which the model fills in: `pretraining: {masked_steps: {share: 0.15, span: 3}}`."""

    makes = {MASKED_STEPS: {}}

    name = "masked-time-series-modeling"
    makes: ClassVar[Mapping[str, Mapping[str, Any]]] = {MASKED_STEPS: {}}
    own_arguments = SeriesTask.own_arguments | {"pretraining"}

    def pretraining_collator(self, processor: Any, data: DataArguments) -> MaskedStepsCollator:
        settings = {MASKED_STEPS: {}} if data.pretraining is None else data.pretraining
        if set(settings) != {MASKED_STEPS}:
            raise ValueError(f"`pretraining` should be {{{MASKED_STEPS}: ...}} for {self.name}, got {settings}.")
        keywords = settings[MASKED_STEPS] or {}
        accepted = set(inspect.signature(MaskedStepsCollator).parameters) - {"seed"}
        unknown = sorted(set(keywords) - accepted)
        if unknown:
            raise ValueError(f"`pretraining`: `{MASKED_STEPS}` has no {unknown}, accepted: {sorted(accepted)}.")
        return MaskedStepsCollator(**keywords)


class NextStepPrediction(TimeSeriesPretraining):
    """Each step from those before, by a causal model (`is_causal: true`, which a new one is)."""

    name = "next-step-prediction"

    def sizes(
        self, architecture: Mapping[str, Any], data: DataArguments, rows: list[Dataset], processor: Any
    ) -> dict[str, Any]:
        """The channels, and that every step sees none behind it."""
        if architecture.get("is_causal") is False:
            raise ValueError(
                f"{self.name} needs a causal model: leave `is_causal` out, or say `task: masked-time-series-modeling`."
            )
        return {**super().sizes(architecture, data, rows, processor), "is_causal": True}

    def further_metrics(
        self, model: Any, processor: Any, data: DataArguments, seed: int
    ) -> Callable[[Metrics], Metrics]:
        """None; a model that is not causal, which sees what it is to predict, is refused."""
        if not model.config.is_causal:
            raise ValueError(
                f"{self.name} needs a causal model, and this one sees every step: pre-train it by `task: "
                "masked-time-series-modeling`, or start from an `architecture`."
            )
        return super().further_metrics(model, processor, data, seed)


class TrajectoryPretraining(OfflineReinforcementLearning):
    """The next state and the next action of episodes; nothing is played."""

    name = "trajectory-modeling"
    auto_class = "FlowformerForTrajectoryPretraining"

    def further_metrics(
        self, model: Any, processor: Any, data: DataArguments, seed: int
    ) -> Callable[[Metrics], Metrics]:
        return lambda metrics: {}

    def measured_on(self, metric: str) -> str | None:
        return None
