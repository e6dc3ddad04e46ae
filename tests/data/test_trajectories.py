import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_transfer.data.bundled import load
from hf_transfer.data.trajectories import TrajectoryProcessor, trajectory_shape, windows

ROWS = {
    "states": [[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [[6.0, 7.0]]],
    "actions": [[[0.1], [0.2], [0.3]], [[0.4]]],
    "rewards": [[1.0, 2.0, 4.0], [3.0]],
}


def test_a_window_by_hand():
    rows = Dataset.from_dict(ROWS)
    processor = TrajectoryProcessor.fit(rows, context_length=2)
    assert processor.return_scale == 7 and processor.state_mean == [3, 4]
    ready = windows(rows, processor)
    assert len(ready) == 4
    deviation = np.std([0, 2, 4, 6])
    last = ready[2]
    assert torch.allclose(last["states"], torch.tensor([[-1.0, -1.0], [1.0, 1.0]]) / deviation)
    assert torch.allclose(last["returns_to_go"], torch.tensor([[6.0], [4.0]]) / 7)
    assert last["timesteps"].tolist() == [1, 2] and last["attention_mask"].tolist() == [1, 1]
    assert torch.equal(last["labels"], last["actions"]) and last["actions"][:, 0].tolist() == pytest.approx([0.2, 0.3])
    first = ready[3]
    assert first["attention_mask"].tolist() == [0, 1] and first["timesteps"].tolist() == [0, 0]
    assert first["states"][0].tolist() == [0, 0]


def test_behaviour_cloning_is_not_told_the_return():
    rows = Dataset.from_dict(ROWS)
    told, untold = (TrajectoryProcessor.fit(rows, 2, conditions_on_return=told) for told in (True, False))
    window, hidden = (windows(rows, processor)[2] for processor in (told, untold))
    assert window.pop("returns_to_go").abs().min() > 0 and not hidden.pop("returns_to_go").any()
    assert all(torch.equal(window[name], hidden[name]) for name in window)


def test_the_processor_is_saved(tmp_path):
    processor = TrajectoryProcessor([0.5], [2.0], 3.0, 4)
    processor.save_pretrained(tmp_path / "model")
    assert TrajectoryProcessor.from_pretrained(tmp_path / "model") == processor
    with pytest.raises(ValueError, match="should be positive"):
        TrajectoryProcessor([0.5], [2.0], 0.0)


def test_columns_that_do_not_fit():
    rows = Dataset.from_dict({**ROWS, "rewards": [[1.0, 2.0], [3.0]]})
    with pytest.raises(ValueError, match="episode 0 has 3 states and 2 rewards"):
        windows(rows, TrajectoryProcessor([0, 0], [1, 1], 1.0))
    with pytest.raises(ValueError, match="have columns `states`, `actions` and `rewards`"):
        trajectory_shape(Dataset.from_dict({"text": ["a"]}))


def test_bundled_episodes():
    pytest.importorskip("gymnasium")
    rows = load("trajectories", options={"environment": "CartPole-v1", "policy": "random", "episodes": 3})
    assert len(rows) == 3 and trajectory_shape(rows)[:2] == (4, 2)
    assert set(np.sum(rows[0]["actions"], axis=1)) == {1.0}
    with pytest.raises(ValueError, match="unknown `policy` `best`, accepted"):
        load("trajectories", options={"policy": "best"})
