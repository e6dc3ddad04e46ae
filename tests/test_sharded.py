"""A Flowformer under FSDP2, half of its weights in each of two processes, learns what it learns unsharded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from tests.processes import TWO, run_module

ROOT = Path(__file__).parents[1]
CONFIGURATIONS = {
    "cpu": "NO",
    "ddp": "MULTI_GPU",
    "fsdp2": "FSDP",
    "deepspeed_zero2": "DEEPSPEED",
    "zero3": "DEEPSPEED",
}
STAGE = "ACCELERATE_DEEPSPEED_ZERO_STAGE"
DEEPSPEED = {
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
    "ACCELERATE_TORCH_DEVICE": "cpu",
    "DS_ACCELERATOR": "cpu",
    "GLOO_SOCKET_IFNAME": "lo",
}
"""What `accelerate launch --config_file recipes/accelerate/deepspeed_zero2.yaml` sets, and that it is the CPU."""


@pytest.mark.slow
def test_sharded_weights_are_those_of_a_training_in_one_piece(tmp_path):
    launched("tests.sharded_run", tmp_path / "states.pt")
    found = torch.load(tmp_path / "states.pt")
    assert 0.4 < found["share"] < 0.6, "each process keeps half of the weights"
    assert found["sharded"].keys() == found["whole"].keys()
    for name, value in found["whole"].items():
        torch.testing.assert_close(found["sharded"][name], value, rtol=1e-5, atol=1e-6, msg=name)


def launched(module: str, output: Path) -> None:
    """Run a module in two processes on the CPU."""
    run_module(module, str(output), launcher=TWO, GLOO_SOCKET_IFNAME="lo", ACCELERATE_USE_CPU="true")


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    """Of the model, and under their own names those of the objectives."""
    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}


@pytest.mark.slow
def test_objectives_are_sharded_with_the_model_and_resume_exactly(tmp_path):
    """Discriminators, moving averages and distances from the start; a checkpoint half way holds all of them."""
    launched("tests.sharded_objectives", tmp_path)
    told = (tmp_path / "refusal.txt").read_text()
    assert told.startswith("checkpoints of `optim: sgd` cannot be resumed under FSDP2"), told
    for name, share in json.loads((tmp_path / "shares.json").read_text()).items():
        assert 0.45 < share < 0.55, "each process keeps half of what the objectives hold"
        straight, resumed, whole, start = (
            weights_in(tmp_path / name / folder)
            for folder in ("straight", "sharded/model", "whole/model", "whole/start")
        )
        assert straight.keys() == resumed.keys() == whole.keys() == start.keys()
        assert any(key.startswith("objectives.") for key in whole)
        moved = [key for key in whole if not torch.equal(whole[key], start[key])]
        assert any(key.startswith("objectives.") for key in moved) and len(moved) > len(whole) / 3
        for key, value in whole.items():
            torch.testing.assert_close(straight[key], value, rtol=1e-5, atol=1e-6, msg=f"{name}: {key}")
            assert torch.equal(resumed[key], straight[key]), f"{name}: {key}"


@pytest.mark.slow
def test_deepspeed_trains_what_data_parallel_does_and_resumes_exactly(tmp_path):
    """ZeRO 2 with every kind of objective; ZeRO 3 with those that read no weights between forwards."""
    pytest.importorskip("deepspeed")
    launched("tests.deepspeed_objectives", tmp_path / "whole")
    for stage in ("2", "3"):
        folder = tmp_path / stage
        run_module("tests.deepspeed_objectives", str(folder), launcher=TWO, **DEEPSPEED, **{STAGE: stage})
        names = [path.parent.name for path in folder.glob("*/straight")]
        assert len(names) == (4 if stage == "2" else 2)
        for name in names:
            whole, straight, resumed = (
                weights_in(place)
                for place in (
                    tmp_path / "whole" / name / "straight",
                    folder / name / "straight",
                    folder / name / "model",
                )
            )
            assert whole.keys() == straight.keys() == resumed.keys()
            assert any(key.startswith("objectives.") for key in whole)
            for key, value in whole.items():
                torch.testing.assert_close(straight[key], value, rtol=1e-5, atol=1e-6, msg=f"{stage} {name}: {key}")
                assert torch.equal(resumed[key], straight[key]), f"{stage} {name}: {key}"
    told = json.loads((tmp_path / "3" / "refusals.json").read_text())
    assert told["weights"].startswith("['l2_sp', 'ewc'] read the model's weights between its forwards")
    assert told["averaged"].startswith("['self_ensembling'] read the model's weights")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_accelerate_reads_the_configuration(name):
    config = load_config_from_file(str(ROOT / "recipes" / "accelerate" / f"{name}.yaml"))
    assert str(getattr(config.distributed_type, "value", config.distributed_type)) == CONFIGURATIONS[name]
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
    if config.deepspeed_config:
        assert config.deepspeed_config["zero_stage"] == int(name[-1])
