"""Loss, gradients and the step after them of image-text pairs, alike on one process and on two.

torchrun --standalone --nproc_per_node 2 -m tests.pretraining.pair_processes OUTPUT_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from hf_transfer.pretraining.clip import CLIP
from hf_transfer.pretraining.siglip import SigLIP
from hf_transfer.training.transfer_model import TransferModel
from tests.pretraining import pairs

OBJECTIVES = {"clip": CLIP, "siglip": SigLIP}
ROWS = {"even": (3, 6), "uneven": (2, 6)}
"""Rows of the first process, and of both."""


def run(first: int, last: int, split: str, name: str) -> dict[str, torch.Tensor]:
    """The loss and the gradients of rows first to last, averaged over processes as in training."""
    objective = OBJECTIVES[name]()
    wrapped = TransferModel(pairs.dual_encoder(), {name: objective}, "nothing").train()
    batch = {key: value[first:last] for key, value in pairs.batch_of(ROWS[split][1]).items()}
    if dist.is_initialized():
        # as a collator pads: to the longest text of a process's own rows
        longest = int(batch["attention_mask"].sum(1).max())
        batch = {key: value[:, :longest] if value.ndim == 2 else value for key, value in batch.items()}
    module = torch.nn.parallel.DistributedDataParallel(wrapped) if dist.is_initialized() else wrapped
    found = module(**batch)
    found.loss.backward()
    found = {"loss": found.loss.detach()}
    return found | {key: one.grad for key, one in wrapped.named_parameters() if one.grad is not None}


def run_all(rank: int | None) -> dict[str, dict[str, torch.Tensor]]:
    ends = {}
    for split, (own, total) in ROWS.items():
        for name in OBJECTIVES:
            first, last = {None: (0, total), 0: (0, own), 1: (own, total)}[rank]
            ends[f"{name}_{split}"] = run(first, last, split, name)
    return ends


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.save(run_all(dist.get_rank()), Path(sys.argv[1]) / f"rank_{dist.get_rank()}.pt")
    dist.barrier()
    dist.destroy_process_group()
