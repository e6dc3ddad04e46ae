"""Trainings whose objectives have parameters of their own, under FSDP2 over two CPU processes, and under plain data
parallel. `test_sharded.py` runs it.

torchrun --standalone --nproc_per_node 2 -m tests.sharded_objectives OUTPUT_FOLDER

On the CPU accelerate runs plain data parallel where FSDP is asked for. `sharding` tells it that these processes have
an accelerator; devices, process group and tensors stay those of the CPU.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from hf_transfer.models.flowformer.modeling_flowformer import FlowformerLayer
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny
from tests.distributed_runs import STEPS, config

CASES = {
    "adversarial": {"cdan": {"hidden_size": 8}, "mcc": {}},
    "weights": {"l2_sp": {}, "ewc": {"samples": 8}, "mdd": {"hidden_size": 8}},
    "averaged": {"self_ensembling": {"threshold": 0.4, "balance": 0.5}, "dann": {"hidden_size": 8}},
}
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}
"""What `accelerate launch --config_file recipes/accelerate/fsdp2.yaml` sets."""


@contextmanager
def sharding(args: TransferConfig, is_wanted: bool) -> Iterator[None]:
    """Trainers that are made inside shard their weights, where that is wanted."""
    if not is_wanted:
        yield
        return
    assert args.device.type == "cpu"  # which makes the state
    os.environ |= FSDP
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    try:
        yield
    finally:
        for name in FSDP:
            del os.environ[name]


def trainer_of(folder: Path, objectives: dict, is_sharded: bool) -> TransferTrainer:
    # a large epsilon keeps Adam from blowing rounding errors of tiny gradients up to whole steps
    adam = {"optim": "adamw_torch", "learning_rate": 0.01, "adam_epsilon": 0.01}
    args = replace(config(folder, batch_size=8), **adam, max_steps=STEPS, save_strategy="steps")
    with sharding(args, is_sharded):
        torch.manual_seed(0)
        rows = tiny.two_domains(tiny.digit_rows(0, 64))
        trainer = TransferTrainer(tiny.flowformer(), args, train_dataset=rows, objectives=objectives)
    assert trainer.is_fsdp_enabled == is_sharded
    return trainer


def train(folder: Path, objectives: dict, is_sharded: bool, resume: bool = False) -> float:
    """Train and save; gives the share of the objectives' parameters that this process kept."""
    trainer = trainer_of(folder, objectives, is_sharded)
    if not is_sharded:
        trainer.save_model(str(folder / "start"))
    trainer.train(resume_from_checkpoint=resume or None)
    trainer.save_model(str(folder / "model"))
    own = [weight for name, weight in trainer.transfer_model.named_parameters() if name.startswith("objectives.")]
    layers = [module for module in trainer.adapted_model.modules() if isinstance(module, FlowformerLayer)]
    assert layers and all(isinstance(layer, FSDPModule) == is_sharded for layer in layers), "sharded layer by layer"
    assert own, "these objectives have parameters"
    assert all(isinstance(weight, DTensor) for weight in own) == is_sharded
    kept = sum((weight.to_local() if is_sharded else weight).numel() for weight in own)
    return kept / sum(weight.numel() for weight in own)


def refusal(folder: Path) -> str:
    """What a training with SGD, whose checkpoints could not be resumed, is told."""
    trainer = trainer_of(folder, CASES["adversarial"], is_sharded=True)
    trainer.args.optim = "sgd"
    try:
        trainer.train()
    except ValueError as error:
        return str(error)
    return "it trains"


def main(output: Path) -> None:
    shares = {}
    for name, objectives in CASES.items():
        shares[name] = train(output / name / "sharded", objectives, is_sharded=True)
        newest = output / name / "sharded" / f"checkpoint-{STEPS}"
        dist.barrier()
        if dist.get_rank() == 0:
            shutil.copytree(output / name / "sharded" / "model", output / name / "straight")
            shutil.rmtree(newest)
        dist.barrier()
        train(output / name / "sharded", objectives, is_sharded=True, resume=True)
        train(output / name / "whole", objectives, is_sharded=False)
    told = refusal(output / "refused")
    if dist.get_rank() == 0:
        (output / "shares.json").write_text(json.dumps(shares))
        (output / "refusal.txt").write_text(told)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
