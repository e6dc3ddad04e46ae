"""Offline trajectories, and the windows of them that a Decision Transformer learns from.

Paper: Chen et al., NeurIPS 2021, https://huggingface.co/papers/2106.01345
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value

from hf_transfer.data.roll_outs import POLICIES, roll_out

DEFAULT_ENVIRONMENT = "Pendulum-v1"
PROCESSOR_FILE = "trajectory_processor.json"
STATE_COLUMNS = ("states", "observations")
"""The second is what D4RL's data sets call them."""


@cache
def trajectories(
    environment: str = DEFAULT_ENVIRONMENT, policy: str = "mixed", episodes: int = 200, seed: int = 0
) -> Dataset:
    """Roll-outs of a gymnasium environment, one row an episode: `states` [T, S], `actions` [T, A], `rewards` [T].

    Discrete actions are one-hot, others scaled to [-1, 1].

    Args:
        environment: gymnasium's name; a scripted policy is there for `Pendulum-v1`, `CartPole-v1` and `Acrobot-v1`.
        policy: `random`; `scripted`; or `mixed`, scripted with a share of random actions that each episode draws from
            [0, 1], so that episodes are of every quality.
        episodes: number of rows.
        seed: the same seed gives the same rows.

    Raises:
        ValueError: gymnasium is not installed, an unknown environment or policy, or no scripted policy for it.
    """
    if policy not in POLICIES:
        raise ValueError(f"unknown `policy` `{policy}`, accepted: {sorted(POLICIES)}.")
    played = roll_out(environment, POLICIES[policy](environment), episodes, seed)
    steps = List(List(Value("float32")))
    features = Features({"states": steps, "actions": steps, "rewards": List(Value("float32"))})
    rows = {
        "states": [np.stack(episode.states).astype(np.float32).tolist() for episode in played],
        "actions": [np.stack(episode.actions).tolist() for episode in played],
        "rewards": [episode.rewards for episode in played],
    }
    return Dataset.from_dict(rows, features=features)


@dataclass(frozen=True)
class TrajectoryProcessor:
    """How states and returns are scaled for a model, and how many steps it reads; saved beside the model.

    Args:
        state_mean: [state_dim].
        state_deviation: [state_dim], positive.
        return_scale: returns-to-go are divided by it.
        context_length: steps in a window.
        conditions_on_return: False hides the returns (all zeros), which makes the model clone the behaviour it saw.

    Raises:
        ValueError: a value out of range.
    """

    state_mean: Sequence[float]
    state_deviation: Sequence[float]
    return_scale: float
    context_length: int = 20
    conditions_on_return: bool = True

    def __post_init__(self):
        if self.return_scale <= 0 or self.context_length < 1:
            raise ValueError(
                f"`return_scale` and `context_length` should be positive, got {self.return_scale} and "
                f"{self.context_length}."
            )

    @classmethod
    def fit(
        cls,
        dataset: Dataset,
        context_length: int = 20,
        return_scale: float | None = None,
        conditions_on_return: bool = True,
    ) -> TrajectoryProcessor:
        """The processor with the mean and deviation of all states, and the largest |return| as the scale."""
        column = state_column(dataset)
        states = np.concatenate([np.asarray(episode, dtype=np.float64) for episode in dataset[column]])
        largest = max(abs(float(np.sum(rewards))) for rewards in dataset["rewards"])
        deviation = np.maximum(states.std(0), 1e-6)
        scale = (largest or 1.0) if return_scale is None else return_scale
        return cls(states.mean(0).tolist(), deviation.tolist(), scale, context_length, conditions_on_return)

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / PROCESSOR_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> TrajectoryProcessor:
        """Raises FileNotFoundError where the folder has none."""
        return cls(**json.loads((Path(folder) / PROCESSOR_FILE).read_text()))

    def scaled(self, states: np.ndarray) -> np.ndarray:
        """States in deviations from the mean."""
        return (states - np.asarray(self.state_mean)) / np.asarray(self.state_deviation)

    def inputs(
        self, states: np.ndarray, actions: np.ndarray, returns_to_go: np.ndarray, last: int
    ) -> dict[str, torch.Tensor]:
        """The window of `context_length` steps that ends with step `last`, zeros before the start of the episode.

        Args:
            states: [T, state_dim], not yet scaled.
            actions: [T, act_dim].
            returns_to_go: [T], not yet scaled.
            last: below T.
        """
        first = max(0, last + 1 - self.context_length)
        missing = self.context_length - (last + 1 - first)
        columns = {
            "states": self.scaled(states[first : last + 1]),
            "actions": actions[first : last + 1],
            "returns_to_go": returns_to_go[first : last + 1, None] * (self.conditions_on_return / self.return_scale),
        }
        window = {
            name: torch.from_numpy(np.pad(values, ((missing, 0), (0, 0))).astype(np.float32))
            for name, values in columns.items()
        }
        times = np.maximum(np.arange(last + 1 - self.context_length, last + 1), 0)
        window["timesteps"] = torch.from_numpy(times)
        window["attention_mask"] = torch.from_numpy((np.arange(self.context_length) >= missing).astype(np.int64))
        return window


class WindowReader:
    """Turns numbers (`episode`, `step`) into the window that ends there, with `labels` the actions of its steps."""

    def __init__(self, dataset: Dataset, processor: TrajectoryProcessor):
        rows = dataset.with_format(None)
        self.processor = processor
        self.states = [np.asarray(episode, dtype=np.float32) for episode in rows[state_column(dataset)]]
        self.actions = [np.asarray(episode, dtype=np.float32) for episode in rows["actions"]]
        self.returns = [np.cumsum(np.asarray(rewards)[::-1])[::-1] for rewards in rows["rewards"]]

    def __call__(self, rows: Mapping[str, list[int]]) -> dict[str, list[torch.Tensor]]:
        windows = []
        for episode, step in zip(rows["episode"], rows["step"]):
            parts = (self.states[episode], self.actions[episode], self.returns[episode])
            window = self.processor.inputs(*parts, step)
            windows.append({**window, "labels": window["actions"]})
        return {name: [window[name] for window in windows] for name in windows[0]}


def windows(dataset: Dataset, processor: TrajectoryProcessor) -> Dataset:
    """One row for every step of every episode: the window that ends there, read when it is asked for.

    An ordinary shuffling sampler then draws windows evenly over all steps, others in every epoch, and a resumed run
    reads those of a straight one.

    Args:
        dataset: rows `states`, `actions`, `rewards`.
        processor: scales them.

    Raises:
        ValueError: a column is missing, or the columns of an episode differ in length.
    """
    reader = WindowReader(dataset, processor)
    lengths = [len(states) for states in reader.states]
    for name, column in (("actions", reader.actions), ("rewards", reader.returns)):
        wrong = [index for index, steps in enumerate(column) if len(steps) != lengths[index]]
        if wrong:
            raise ValueError(
                f"episode {wrong[0]} has {lengths[wrong[0]]} states and {len(column[wrong[0]])} {name}: there should "
                "be one for each step."
            )
    indices = {
        "episode": np.repeat(np.arange(len(lengths)), lengths),
        "step": np.concatenate([np.arange(length) for length in lengths]),
    }
    return Dataset.from_dict(indices).with_transform(reader)


def state_column(dataset: Dataset) -> str:
    """The name of the column of states.

    Raises:
        ValueError: the dataset holds no trajectories.
    """
    found = [name for name in STATE_COLUMNS if name in dataset.column_names]
    missing = {"actions", "rewards"} - set(dataset.column_names)
    if missing or not found:
        raise ValueError(f"trajectories have columns `states`, `actions` and `rewards`, got {dataset.column_names}.")
    return found[0]


def trajectory_shape(dataset: Dataset) -> tuple[int, int, int]:
    """(state_dim, act_dim, steps of the longest episode).

    Raises:
        ValueError: the dataset holds no trajectories.
    """
    column = state_column(dataset)
    rows = dataset.with_format(None)
    first, longest = rows[0], max(len(rewards) for rewards in rows["rewards"])
    return len(first[column][0]), len(first["actions"][0]), longest
