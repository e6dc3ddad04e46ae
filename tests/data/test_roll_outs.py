import numpy as np
import pytest

pytest.importorskip("gymnasium")

from hf_transfer.data.roll_outs import POLICIES, ActionSpace, make_environment, roll_out, scripted_policy


def returns(environment: str, policy: str, episodes: int = 5) -> np.ndarray:
    played = roll_out(environment, POLICIES[policy](environment), episodes)
    return np.array([sum(episode.rewards) for episode in played])


def test_the_controllers_play_well():
    assert returns("Pendulum-v1", "scripted").mean() > -250 > -700 > returns("Pendulum-v1", "random").mean()
    assert returns("CartPole-v1", "scripted", 2).min() == 500
    assert returns("Acrobot-v1", "scripted", 4).min() > -150


def test_mixed_episodes_are_of_every_quality():
    mixed = returns("CartPole-v1", "mixed", 12)
    assert mixed.min() < 100 and mixed.max() > 300


def test_an_episode_is_what_the_environment_says():
    (episode,) = roll_out("Pendulum-v1", POLICIES["random"]("Pendulum-v1"), 1, seed=4)
    environment = make_environment("Pendulum-v1")
    state, _ = environment.reset(seed=4)
    for step in range(len(episode.actions)):
        assert np.allclose(state, episode.states[step])
        state, reward, *_ = environment.step(2 * episode.actions[step])
        assert reward == pytest.approx(episode.rewards[step], abs=1e-4)
    assert len(episode.states) == len(episode.actions) == 200


def test_actions_are_scaled_or_one_hot():
    space = ActionSpace(make_environment("Pendulum-v1").action_space)
    assert space.to_environment(np.array([-1.0])) == [-2] and space.to_environment(np.array([0.5])) == [1]
    assert ActionSpace(make_environment("CartPole-v1").action_space).to_environment(np.array([0.1, 0.9])) == 1


def test_what_is_not_there():
    with pytest.raises(ValueError, match=r"no scripted policy for `MountainCar-v0`, accepted: \['Acrobot-v1'"):
        scripted_policy("MountainCar-v0")
    with pytest.raises(ValueError, match="cannot make the environment `Nowhere-v0`"):
        make_environment("Nowhere-v0")
