"""Offline reinforcement learning: a model of trajectories, measured by playing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from hf_transfer.data.roll_outs import ActionSpace, make_environment
from hf_transfer.data.trajectories import DEFAULT_ENVIRONMENT, TrajectoryProcessor, trajectory_shape
from hf_transfer.evaluation.offline_rl import check_environment, evaluate_trajectory_model
from hf_transfer.models import flowformer
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.tasks.task import Metrics, Task

FIRST_EPISODE_SEED = 10_000


@dataclass(frozen=True)
class TrajectorySettings:
    """The argument `trajectories`.

    Args:
        context_length: steps that the model reads.
        return_scale: divides returns; the largest |return| of the data when left out.
        conditions_on_return: False hides the returns: behaviour cloning.
        environment: gymnasium's name of the one to play in after training; a bundled data set knows its own, and
            without one nothing is played.
        target_return: the return to ask for; the reference's when left out.
        references: mean returns of a random and a reference policy; measured when left out.
        episodes: how many to play.

    Raises:
        ValueError: a value out of range.
    """

    context_length: int = 20
    return_scale: float | None = None
    conditions_on_return: bool = True
    environment: str | None = None
    target_return: float | None = None
    references: list[float] | None = None
    episodes: int = 20

    def __post_init__(self):
        if self.context_length < 1 or self.episodes < 1:
            raise ValueError(
                f"`trajectories`: `context_length` and `episodes` should be at least 1, got {self.context_length} and "
                f"{self.episodes}."
            )
        if self.references is not None and len(self.references) != 2:
            raise ValueError(f"`trajectories`: `references` should be two returns, got {self.references}.")


def trajectory_settings(arguments: DataArguments) -> TrajectorySettings:
    """The settings, with the environment of the bundled data set.

    Raises:
        ValueError: an unknown keyword or a value out of range.
    """
    given = dict(arguments.trajectories or {})
    unknown = sorted(set(given) - set(TrajectorySettings.__dataclass_fields__))
    if unknown:
        accepted = sorted(TrajectorySettings.__dataclass_fields__)
        raise ValueError(f"`trajectories` has no {unknown}, accepted: {accepted}.")
    if arguments.dataset == "trajectories":
        given.setdefault("environment", (arguments.dataset_options or {}).get("environment", DEFAULT_ENVIRONMENT))
    return TrajectorySettings(**given)


class OfflineReinforcementLearning(Task):
    """The actions of episodes, from states and the return still wanted; transformers has no Auto class for it."""

    name = "offline-reinforcement-learning"
    reads = "trajectory"
    auto_class = "DecisionFlowformer"
    reads_labels = False
    input_column = "actions"
    own_arguments = frozenset({"trajectories"})
    keeps_columns = True  # they are places in episodes, from which windows are read

    def model_class(self) -> Any:
        return getattr(flowformer, self.auto_class)

    def new_processor(self, model: ModelArguments, data: DataArguments, rows: Dataset) -> TrajectoryProcessor:
        """The scales of the trajectories: the model's, or new ones of the rows."""
        settings = trajectory_settings(data)
        if settings.environment is not None:
            make_environment(settings.environment)
        if model.model is not None:
            return TrajectoryProcessor.from_pretrained(model.model)
        return TrajectoryProcessor.fit(
            rows, settings.context_length, settings.return_scale, settings.conditions_on_return
        )

    def sizes(
        self, architecture: Mapping[str, Any], data: DataArguments, rows: list[Dataset], processor: Any
    ) -> dict[str, Any]:
        """Sizes of states and actions, the longest episode, and whether actions are classes."""
        state_dim, act_dim, _ = trajectory_shape(rows[0])
        longest = max(trajectory_shape(one)[2] for one in rows)
        environment = trajectory_settings(data).environment
        made = None if environment is None else make_environment(environment)
        limit = 0 if made is None else made.spec.max_episode_steps or 0
        is_discrete = made is not None and ActionSpace(made.action_space).is_discrete
        sizes = {"state_dim": state_dim, "act_dim": act_dim, "max_episode_length": max(longest, limit)}
        return {**sizes, "discrete_actions": is_discrete}

    def further_metrics(
        self, model: Any, processor: Any, data: DataArguments, seed: int
    ) -> Callable[[Metrics], Metrics]:
        """Mean return and normalised score of episodes played, where there is an environment to play in."""
        settings = trajectory_settings(data)
        if settings.environment is None:
            return lambda metrics: {}
        check_environment(model, settings.environment)
        keywords = {name: getattr(settings, name) for name in ("target_return", "references", "episodes")}
        # episodes of their own: other ones than the bundled data begin with, and others for every seed of a run
        first = FIRST_EPISODE_SEED * (seed + 1)
        return lambda _: evaluate_trajectory_model(model, processor, settings.environment, seed=first, **keywords)

    def measured_on(self, metric: str) -> str | None:
        return None if metric == "loss" else "episodes played"
