"""Two real processes (gloo) end where one process with twice the batch ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import distributed_runs

NAMES = ["cross_entropy", "adversarial", "accumulated", "alternating", "thawing"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """(states of the first process, states of the second, facts) of the runs on two processes."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.distributed_runs", str(folder)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    first, second = (torch.load(folder / f"rank_{rank}.pt") for rank in (0, 1))
    return first, second, json.loads((folder / "facts.json").read_text())


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """(states, facts) of the same runs on this process, with twice the batch."""
    folder = tmp_path_factory.mktemp("one")
    ends = distributed_runs.run(folder, batch_size=16)
    return ends, json.loads((folder / "facts.json").read_text())


def test_there_are_two_processes(two, one):
    assert two[2]["world_size"] == 2
    assert one[1]["world_size"] == 1


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one_with_twice_the_batch(two, one, name):
    ends, alone = two[0][name], one[0][name]
    assert ends.keys() == alone.keys()
    for key, value in alone.items():
        torch.testing.assert_close(ends[key], value, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    assert two[2]["losses"][name] == pytest.approx(one[1]["losses"][name], abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_both_processes_hold_the_same_weights(two, name):
    for key, value in two[0][name].items():
        assert torch.equal(value, two[1][name][key]), key


@pytest.mark.parametrize("name", ["cross_entropy", "adversarial"])
def test_resuming_on_two_processes_equals_a_straight_run(two, name):
    for states in two[:2]:
        for key, value in states[name].items():
            assert torch.equal(value, states[f"{name}_resumed"][key]), key


def test_the_runs_have_moved(one):
    """Otherwise everything above would hold of models that never learned."""
    torch.manual_seed(0)
    start = distributed_runs.tiny.vit().state_dict()
    for name in NAMES:
        moved = [(one[0][name][f"model.{key}"] - value).abs().max().item() for key, value in start.items()]
        assert max(moved) > 1e-2


def test_the_validator_reads_every_row_once(two, one):
    assert two[2]["score"] == pytest.approx(one[1]["score"], abs=1e-5)
