"""A Flowformer sharded by FSDP2 over two CPU processes, and the same training unsharded. `test_sharded.py` runs it.

torchrun --standalone --nproc_per_node 2 -m tests.sharded_run OUTPUT_FILE
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from hf_transfer.models.flowformer import FlowformerConfig, FlowformerForImageClassification

STEPS, ROWS, CLASSES = 3, 16, 10
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
PIXELS = {"modality": "image", "image_size": 14, "patch_size": 7, "num_channels": 1}


def trained(model: torch.nn.Module, rows: slice) -> dict[str, Tensor]:
    """Weights after a few steps on these rows of every batch, gathered whole."""
    drawn = torch.Generator().manual_seed(1)
    pixels = torch.randn(ROWS, 1, PIXELS["image_size"], PIXELS["image_size"], generator=drawn)
    labels = torch.randint(CLASSES, (ROWS,), generator=drawn)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(pixel_values=pixels[rows], labels=labels[rows]).loss.backward()
        optimizer.step()
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
        for name, value in model.state_dict().items()
    }


def fresh() -> torch.nn.Module:
    torch.manual_seed(0)
    return FlowformerForImageClassification(FlowformerConfig(**SIZES, **PIXELS, num_labels=CLASSES)).train()


def main(output: str) -> None:
    """Train both ways and write both states, and the share of the weights that this process kept."""
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    rank, model = dist.get_rank(), fresh()
    whole = sum(weight.numel() for weight in model.parameters())
    layers = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    local = sum(weight.to_local().numel() for weight in model.parameters())
    half = ROWS // dist.get_world_size()
    sharded = trained(model, slice(rank * half, (rank + 1) * half))
    if rank == 0:
        torch.save({"sharded": sharded, "whole": trained(fresh(), slice(None)), "share": local / whole}, output)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
