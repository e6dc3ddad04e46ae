"""How well a Decision Flowformer plays: mean return and D4RL's normalised score.

    score = 100 (return - random) / (reference - random)

Papers: Fu et al. 2020 (D4RL), https://huggingface.co/papers/2004.07219; Chen et al., NeurIPS 2021,
https://huggingface.co/papers/2106.01345
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hf_transfer.data.roll_outs import ActionSpace, Episode, make_environment, random_policy, roll_out, scripted_policy
from hf_transfer.data.trajectories import TrajectoryProcessor
from hf_transfer.models.flowformer import DecisionFlowformer


@dataclass(frozen=True)
class ConditionedPolicy:
    """Plays by a model that is told the return still wanted.

    Args:
        model: a trained DecisionFlowformer.
        processor: the one it was trained with; the context is limited to its `context_length`.
        target_return: of the whole episode, in the environment's units.
    """

    model: DecisionFlowformer
    processor: TrajectoryProcessor
    target_return: float

    @torch.no_grad()
    def __call__(self, episodes: Sequence[Episode]) -> np.ndarray:
        rows = [self._inputs(episode) for episode in episodes]
        device = next(self.model.parameters()).device
        batch = {name: torch.stack([row[name] for row in rows]).to(device) for name in rows[0]}
        last = self.model(**batch).action_preds[:, -1].float().cpu()
        if self.model.config.discrete_actions:
            last = torch.nn.functional.one_hot(last.argmax(-1), last.shape[-1]).float()
        return last.numpy()

    def _inputs(self, episode: Episode) -> dict[str, torch.Tensor]:
        # the action to decide is given as zeros
        actions = np.array([*episode.actions, np.zeros(self.model.config.act_dim)])
        returns = self.target_return - np.concatenate([[0.0], np.cumsum(episode.rewards)])
        return self.processor.inputs(np.array(episode.states), actions, returns, len(episode.actions))


def returns_of(episodes: Sequence[Episode]) -> np.ndarray:
    """The return of each episode."""
    return np.array([sum(episode.rewards) for episode in episodes])


def reference_returns(environment: str, episodes: int = 20, seed: int = 0) -> tuple[float, float]:
    """Mean returns of the random and the scripted policy on the same seeds.

    Raises:
        ValueError: there is no scripted policy for this environment.
    """
    policies = (random_policy(environment), scripted_policy(environment))
    random, scripted = (float(returns_of(roll_out(environment, one, episodes, seed)).mean()) for one in policies)
    return random, scripted


def normalised_score(value: float, random: float, reference: float) -> float:
    """0 where the return is the random policy's, 100 where it is the reference's.

    Raises:
        ValueError: both are the same.
    """
    if random == reference:
        raise ValueError(f"the random and the reference return are both {random}: there is no scale between them.")
    return 100 * (value - random) / (reference - random)


def evaluate_trajectory_model(
    model: DecisionFlowformer,
    processor: TrajectoryProcessor,
    environment: str,
    *,
    target_return: float | None = None,
    references: tuple[float, float] | None = None,
    episodes: int = 20,
    seed: int = 0,
) -> dict[str, float]:
    """Play seeded episodes side by side, conditioned on a target return.

    Args:
        model: a DecisionFlowformer.
        processor: the one it was trained with.
        environment: gymnasium's name.
        target_return: the return to ask for; that of the reference when left out.
        references: mean returns of the random and the reference policy; measured on the same seeds when left out,
            with the scripted policy as the reference.
        episodes: how many.
        seed: of the first episode.

    Returns:
        `mean_return`, `return_deviation`, `normalised_score`, `random_return` and `reference_return`.

    Raises:
        ValueError: the environment's states or actions are not of the model's sizes, or cannot be made.
    """
    check_environment(model, environment)
    random, reference = references or reference_returns(environment, episodes, seed)
    wanted = reference if target_return is None else target_return
    was_training = model.training
    model.eval()
    try:
        played = roll_out(environment, ConditionedPolicy(model, processor, wanted), episodes, seed)
    finally:
        model.train(was_training)
    returns = returns_of(played)
    return {
        "mean_return": float(returns.mean()),
        "return_deviation": float(returns.std()),
        "normalised_score": normalised_score(float(returns.mean()), random, reference),
        "random_return": random,
        "reference_return": reference,
    }


def check_environment(model: DecisionFlowformer, environment: str) -> None:
    """Raises ValueError when states or actions are not of the model's sizes."""
    made = make_environment(environment)
    sizes = {"state_dim": made.observation_space.shape[0], "act_dim": ActionSpace(made.action_space).size}
    for name, size in sizes.items():
        if getattr(model.config, name) != size:
            raise ValueError(f"`{environment}` has {name} {size}, and the model {getattr(model.config, name)}.")
