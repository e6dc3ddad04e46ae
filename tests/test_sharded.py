"""A Flowformer under FSDP2, half of its weights in each of two processes, learns what it learns unsharded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

ROOT = Path(__file__).parents[1]
CONFIGURATIONS = {
    "cpu": "NO",
    "ddp": "MULTI_GPU",
    "fsdp2": "FSDP",
    "deepspeed_zero2": "DEEPSPEED",
    "zero3": "DEEPSPEED",
}


@pytest.mark.slow
def test_sharded_weights_are_those_of_a_training_in_one_piece(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.sharded_run", str(tmp_path / "states.pt")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(tmp_path / "states.pt")
    assert 0.4 < found["share"] < 0.6, "each process keeps half of the weights"
    assert found["sharded"].keys() == found["whole"].keys()
    for name, value in found["whole"].items():
        torch.testing.assert_close(found["sharded"][name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_accelerate_reads_the_configuration(name):
    config = load_config_from_file(str(ROOT / "recipes" / "accelerate" / f"{name}.yaml"))
    assert str(getattr(config.distributed_type, "value", config.distributed_type)) == CONFIGURATIONS[name]
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
    if config.deepspeed_config:
        assert config.deepspeed_config["zero_stage"] == int(name[-1])
