"""Episodes of a gymnasium environment, and the simple controllers that play some of them well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_transfer.data.optional import import_optional


@dataclass
class Episode:
    """What has happened in one episode; while it runs, the last state awaits its action.

    Actions are as a model gives them: one-hot where they are discrete, otherwise scaled to [-1, 1].
    """

    random: np.random.Generator
    states: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)


Policy = Callable[[Sequence[Episode]], np.ndarray]
"""From N running episodes, all at the same step, to their actions [N, act_dim]."""


class ActionSpace:
    """The actions of an environment as a model gives them.

    Args:
        space: gymnasium's, `Discrete` or a bounded one-dimensional `Box`.

    Raises:
        ValueError: another kind of space.
    """

    def __init__(self, space: Any):
        self.is_discrete = hasattr(space, "n")
        if not self.is_discrete and (len(getattr(space, "shape", None) or ()) != 1 or not space.is_bounded()):
            raise ValueError(f"actions should be Discrete or a bounded vector, got {space}.")
        self.size = int(space.n) if self.is_discrete else space.shape[0]
        if not self.is_discrete:
            self.low, self.high = space.low.astype(np.float64), space.high.astype(np.float64)

    def to_environment(self, action: np.ndarray) -> Any:
        """What `env.step` takes."""
        if self.is_discrete:
            return int(action.argmax())
        scaled = self.low + (np.clip(action, -1, 1) + 1) / 2 * (self.high - self.low)
        return scaled.astype(np.float32)

    def random(self, source: np.random.Generator) -> np.ndarray:
        if self.is_discrete:
            return np.eye(self.size)[source.integers(self.size)]
        return source.uniform(-1, 1, self.size)


def make_environment(name: str) -> Any:
    """The gymnasium environment of this name.

    Raises:
        ValueError: gymnasium is not installed, or knows no such environment.
    """
    gymnasium = import_optional("gymnasium", f"the environment {name}")
    try:
        return gymnasium.make(name)
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(f"cannot make the environment `{name}`: {error}") from error


def roll_out(environment: str, policy: Policy, episodes: int, seed: int = 0) -> list[Episode]:
    """Whole episodes, played side by side step by step; episode i starts from the seed `seed + i`.

    Raises:
        ValueError: no such environment, or no episodes.
    """
    if episodes < 1:
        raise ValueError(f"`episodes` should be at least 1, got {episodes}.")
    copies = [make_environment(environment) for _ in range(episodes)]
    space = ActionSpace(copies[0].action_space)
    played = [Episode(np.random.default_rng((seed + index, 1))) for index in range(episodes)]
    for index, (copy, episode) in enumerate(zip(copies, played)):
        episode.states.append(copy.reset(seed=seed + index)[0])
    running = list(range(episodes))
    while running:
        actions = policy([played[index] for index in running])
        going_on = []
        for index, action in zip(running, actions):
            state, reward, terminated, truncated, _ = copies[index].step(space.to_environment(action))
            played[index].actions.append(np.asarray(action, dtype=np.float32))
            played[index].rewards.append(float(reward))
            if not (terminated or truncated):
                played[index].states.append(state)
                going_on.append(index)
        running = going_on
    return played


def random_policy(environment: str) -> Policy:
    """Uniformly random actions, drawn from each episode's own generator."""
    space = ActionSpace(make_environment(environment).action_space)
    return lambda episodes: np.stack([space.random(episode.random) for episode in episodes])


def scripted_policy(environment: str) -> Policy:
    """The controller of the environment.

    Raises:
        ValueError: there is none for it.
    """
    if environment not in SCRIPTED:
        raise ValueError(f"there is no scripted policy for `{environment}`, accepted: {sorted(SCRIPTED)}.")
    control = SCRIPTED[environment]
    return lambda episodes: control(np.stack([episode.states[-1] for episode in episodes]))


def mixed_policy(environment: str) -> Policy:
    """The scripted policy, except that an action is random with a probability that each episode draws from [0, 1]."""
    scripted, space = scripted_policy(environment), ActionSpace(make_environment(environment).action_space)
    shares: dict[int, float] = {}

    def act(episodes: Sequence[Episode]) -> np.ndarray:
        actions = scripted(episodes)
        for index, episode in enumerate(episodes):
            share = shares.setdefault(id(episode), episode.random.uniform())
            if episode.random.uniform() < share:
                actions[index] = space.random(episode.random)
        return actions

    return act


def swing_up(states: np.ndarray) -> np.ndarray:
    """Pendulum-v1 from states [N, 3] (cos, sin, speed): pump energy, then hold upright.

    far:  u = k (E* - E) speed,  E = speed^2 / 6 + 5 cos(angle),  E* = 5
    near: u = -(10 angle + 3 speed)
    """
    angle, speed = np.arctan2(states[:, 1], states[:, 0]), states[:, 2]
    energy = speed**2 / 6 + 5 * np.cos(angle)
    pump = (5 - energy) * np.where(speed == 0, 1.0, speed)
    hold = -(10 * angle + 3 * speed)
    torque = np.where(np.abs(angle) < 0.5, hold, pump)
    return np.clip(torque / 2, -1, 1)[:, None]


def balance(states: np.ndarray) -> np.ndarray:
    """CartPole-v1 from states [N, 4] (place, speed, angle, its speed): push towards where the pole falls.

    push right where  0.1 place + 0.3 speed + 3 angle + angle's speed > 0
    """
    right = states @ np.array([0.1, 0.3, 3.0, 1.0]) > 0
    return np.eye(2)[right.astype(int)]


def swing_over(states: np.ndarray) -> np.ndarray:
    """Acrobot-v1 from states [N, 6] (cos and sin of both angles, their speeds): push against the upper link's speed.

    The torque that the lower link gets is taken from the upper one, whose swing it so widens.
    """
    return np.eye(3)[np.where(states[:, 4] > 0, 0, 2)]


SCRIPTED = {"Acrobot-v1": swing_over, "CartPole-v1": balance, "Pendulum-v1": swing_up}
POLICIES: dict[str, Callable[[str], Policy]] = {
    "mixed": mixed_policy,
    "random": random_policy,
    "scripted": scripted_policy,
}
