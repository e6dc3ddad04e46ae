"""Short trainings that come out alike on one process and on two. `test_distributed.py` runs them both ways.

torchrun --standalone --nproc_per_node 2 -m tests.distributed_runs OUTPUT_FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from datasets import Dataset

from hf_transfer.alternating_trainer import AlternatingTrainer
from hf_transfer.family_trainers import DomainAdaptationTrainer
from hf_transfer.objective import IGNORED_LABEL
from hf_transfer.trainer import TransferConfig, TransferTrainer
from tests import tiny

ADVERSARIAL = {"cdan": {"hidden_size": 8}, "mcc": {}, "dann": {"hidden_size": 8}}
STEPS, STOP = 4, 2


def config(folder: Path, batch_size: int, **changes) -> TransferConfig:
    return TransferConfig(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        max_steps=STEPS,
        save_strategy="steps",
        save_steps=STOP,
        logging_steps=1,
        optim="sgd",  # Adam would blow rounding errors of tiny gradients up to whole steps
        learning_rate=0.1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **changes,
    )


def half_labelled(rows: Dataset) -> Dataset:
    """Two in three rows of the first half lose their label: processes get different numbers of labels."""
    labels = rows.with_format(None)["labels"]
    known = [label if place % 3 == 0 or place > 32 else IGNORED_LABEL for place, label in enumerate(labels)]
    return tiny.with_column(rows, "labels", known)


def trainers(folder: Path, batch_size: int) -> dict[str, TransferTrainer]:
    """The runs by name."""
    digits = tiny.digit_rows(0, 64)

    def make(name: str, rows: Dataset, objectives: dict, **changes) -> TransferTrainer:
        torch.manual_seed(0)
        args = config(folder / name, batch_size, **changes)
        return TransferTrainer(tiny.vit(), args, train_dataset=rows, objectives=objectives)

    weights = {"l2_sp": {}, "bss": {}}
    torch.manual_seed(0)
    args = config(folder / "alternating", batch_size)
    alternating = AlternatingTrainer(tiny.vit(), args, train_dataset=tiny.two_domains(digits), objectives={"mcd": {}})
    return {
        "alternating": alternating,
        "cross_entropy": make("cross_entropy", digits, {}),
        "adversarial": make("adversarial", tiny.two_domains(digits), ADVERSARIAL),
        "thawing": make("thawing", digits, {}, schedules={"ulmfit": {"unfreeze_until": 0.75, "decay": 1.0}}),
        "accumulated": make("accumulated", half_labelled(digits), weights, gradient_accumulation_steps=2),
    }


def validation_score(folder: Path, batch_size: int) -> float:
    """The validator's score over an odd number of rows."""
    digits = tiny.digit_rows(0, 64)
    torch.manual_seed(0)
    trainer = DomainAdaptationTrainer(
        tiny.vit(),
        config(folder / "validator", batch_size),
        train_dataset=digits.select(range(30)),
        target_dataset=digits.select(range(30, 63)),
    )
    return trainer.evaluate()["eval_information_maximization"]


def run(folder: Path, batch_size: int) -> dict[str, dict[str, torch.Tensor]]:
    """The final state of every run, and that of two of them resumed from their middle as well."""
    ends, losses = {}, {}
    for name, trainer in trainers(folder, batch_size).items():
        trainer.train()
        ends[name] = {key: value.clone() for key, value in trainer.transfer_model.state_dict().items()}
        losses[name] = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    for name, trainer in trainers(folder, batch_size).items():
        if name in ("cross_entropy", "adversarial"):
            for parameter in trainer.transfer_model.parameters():
                torch.nn.init.zeros_(parameter)
            trainer.train(resume_from_checkpoint=str(folder / name / f"checkpoint-{STOP}"))
            ends[f"{name}_resumed"] = dict(trainer.transfer_model.state_dict())
    score = validation_score(folder, batch_size)
    if not dist.is_initialized() or dist.get_rank() == 0:
        (folder / "facts.json").write_text(
            json.dumps({"world_size": trainer.args.world_size, "score": score, "losses": losses})
        )
    return ends


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    ends = run(folder, batch_size=8)
    torch.save(ends, folder / f"rank_{dist.get_rank()}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
