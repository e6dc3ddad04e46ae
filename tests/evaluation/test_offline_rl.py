import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")

from hf_transfer.data.roll_outs import Episode
from hf_transfer.data.trajectories import TrajectoryProcessor
from hf_transfer.evaluation.offline_rl import (
    ConditionedPolicy,
    evaluate_trajectory_model,
    normalised_score,
    reference_returns,
)
from hf_transfer.models.flowformer import DecisionFlowformer, FlowformerConfig

PROCESSOR = TrajectoryProcessor([0.0] * 4, [1.0] * 4, 500.0, 3)


def model(**changes) -> DecisionFlowformer:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "max_episode_length": 500}
    sizes |= {"state_dim": 4, "act_dim": 2, "discrete_actions": True}
    return DecisionFlowformer(FlowformerConfig(modality="trajectory", **{**sizes, **changes})).eval()


def test_the_score_is_that_of_the_formula():
    assert normalised_score(5, 1, 9) == 50
    with pytest.raises(ValueError, match="both 1"):
        normalised_score(5, 1, 1)


def test_the_references_are_measured():
    random, scripted = reference_returns("CartPole-v1", 3)
    assert random < 60 and scripted == 500


def test_the_policy_reads_what_the_model_was_trained_on():
    source = np.random.default_rng(0)
    states, actions = source.normal(size=(5, 4)), np.eye(2)[[0, 1, 1, 0]]
    episode = Episode(source, list(states), list(actions), [1.0, 1.0, 1.0, 1.0])
    net = model()
    chosen = ConditionedPolicy(net, PROCESSOR, 500)([episode])
    with torch.no_grad():
        expected = net(
            states=torch.tensor(states[2:]).float()[None],
            actions=torch.tensor(np.stack([*actions[2:], [0, 0]])).float()[None],
            returns_to_go=torch.tensor([498.0, 497.0, 496.0])[None, :, None] / 500,
            timesteps=torch.tensor([[2, 3, 4]]),
        ).action_preds[0, -1]
    assert chosen.argmax() == expected.argmax() and chosen.sum() == 1


def test_a_model_plays():
    metrics = evaluate_trajectory_model(model(), PROCESSOR, "CartPole-v1", references=(20.0, 500.0), episodes=2)
    assert metrics["normalised_score"] == pytest.approx((metrics["mean_return"] - 20) / 4.8)
    assert metrics["reference_return"] == 500


def test_another_environment_is_refused():
    with pytest.raises(ValueError, match="`Pendulum-v1` has state_dim 3, and the model 4"):
        evaluate_trajectory_model(model(), PROCESSOR, "Pendulum-v1")
