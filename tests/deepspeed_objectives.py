"""Trainings whose objectives have parameters of their own, under DeepSpeed over two CPU processes, or under plain data
parallel where DeepSpeed is not asked for. `test_sharded.py` runs it.

torchrun --standalone --nproc_per_node 2 -m tests.deepspeed_objectives OUTPUT_FOLDER

accelerate gives DeepSpeed no process group on a CPU: each process thinks it is alone. `on_cpu` tells it of gloo.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import DistributedType

from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny
from tests.distributed_runs import STEPS, STOP
from tests.sharded_objectives import CASES

WANTED, STAGE = "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_ZERO_STAGE"
OF_FORWARDS = {"adversarial": CASES["adversarial"], "teacher": {"lwf": {}, "mdd": {"hidden_size": 8}}}
"""What ZeRO 3 can train: nothing here reads weights between the model's forwards."""


def on_cpu() -> None:
    """Let accelerate set DeepSpeed's processes up with gloo, and wait for each other without a device."""
    PartialState._prepare_backend = lambda self, *arguments: ("gloo", DistributedType.MULTI_GPU)
    barrier = dist.barrier
    dist.barrier = lambda *arguments, **keywords: barrier()


def trainer_of(folder: Path, objectives: dict) -> TransferTrainer:
    args = TransferConfig(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        max_steps=STEPS,
        save_steps=STOP,
        logging_steps=1,
        optim="adamw_torch",
        learning_rate=0.01,
        adam_epsilon=0.01,  # a small one blows rounding errors of tiny gradients up to whole steps
        report_to=[],
        disable_tqdm=True,
        use_cpu=WANTED not in os.environ,  # which would leave DeepSpeed out
    )
    torch.manual_seed(0)
    rows = tiny.two_domains(tiny.digit_rows(0, 64))
    trainer = TransferTrainer(tiny.flowformer(), args, train_dataset=rows, objectives=objectives)
    assert trainer.is_deepspeed_enabled == (WANTED in os.environ) and trainer.args.world_size == 2
    return trainer


def train(folder: Path, objectives: dict, resume: bool = False) -> None:
    trainer = trainer_of(folder, objectives)
    trainer.train(resume_from_checkpoint=resume or None)
    trainer.save_model(str(folder / "model"))


def refusal(folder: Path, objectives: dict) -> str:
    """What a training is told that cannot be."""
    try:
        trainer_of(folder, objectives)
    except ValueError as error:
        return str(error)
    return "it trains"


def main(output: Path) -> None:
    if WANTED in os.environ:
        on_cpu()
    parts = os.environ.get(STAGE) == "3"
    for name, objectives in (OF_FORWARDS if parts else {**OF_FORWARDS, **CASES}).items():
        folder = output / name
        train(folder, objectives)
        dist.barrier()
        if dist.get_rank() == 0:
            shutil.copytree(folder / "model", folder / "straight")
            shutil.rmtree(folder / f"checkpoint-{STEPS}")
        dist.barrier()
        train(folder, objectives, resume=True)
    if parts:
        told = {name: refusal(output / name, CASES[name]) for name in ("weights", "averaged")}
        if dist.get_rank() == 0:
            (output / "refusals.json").write_text(json.dumps(told))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
