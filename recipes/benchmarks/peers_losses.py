"""Losses of one library on fixed tensors: value, gradient and time; the worker of peers.py.

    python peers_losses.py LIBRARY OUT.pt    # by an interpreter that has the library

In float64 for value and gradient, in float32 on one thread for the time of a forward and backward pass. Writes loss ->
value, gradients and milliseconds. Libraries are imported where they are used, for each process has but one of them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PASSES, DIRECTIONS = 20, 64
SHAPES = {"source": (64, 256), "target": (64, 256), "logits": (64, 31), "first": (256, 128), "second": (256, 128)}
Inputs = dict[str, Tensor]
Losses = dict[str, Callable[[Inputs], Tensor]]


def inputs(dtype: torch.dtype) -> Inputs:
    """Tensors of both kinds of losses, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}
    return {name: tensor.to(dtype).requires_grad_() for name, tensor in made.items()}


@cache
def discriminator(dtype: torch.dtype) -> nn.Module:
    """Of DANN: two layers with the same weights in every process, made once."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(SHAPES["source"][1], 1024), nn.ReLU(), nn.Linear(1024, 1), nn.Flatten(0)).to(dtype)


def of_hf_transfer() -> Losses:
    from hf_transfer.domain_adaptation.afn import adaptive_feature_norm
    from hf_transfer.domain_adaptation.bsp import batch_spectral_penalty
    from hf_transfer.domain_adaptation.coral import correlation_alignment
    from hf_transfer.domain_adaptation.domain_discriminator import domain_discrimination_loss
    from hf_transfer.domain_adaptation.mcc import minimum_class_confusion
    from hf_transfer.functional import gradient_reversal
    from hf_transfer.pretraining.lejepa import sigreg
    from hf_transfer.pretraining.simclr import nt_xent
    from hf_transfer.pretraining.simsiam import negative_cosine

    def dann(given: Inputs) -> Tensor:
        features = torch.cat([given["source"], given["target"]])
        domain = torch.arange(len(features)) // len(given["source"])
        return domain_discrimination_loss(discriminator(features.dtype)(gradient_reversal(features)), domain)

    def gaussian(given: Inputs) -> Tensor:
        torch.manual_seed(0)
        directions = torch.randn(SHAPES["first"][1], DIRECTIONS, dtype=given["first"].dtype)
        return sigreg(given["first"], F.normalize(directions, dim=0))

    return {
        "MCC": lambda given: minimum_class_confusion(given["logits"], 2.5),
        "DANN": dann,
        "CORAL": lambda given: correlation_alignment(given["source"], given["target"]),
        "BSP": lambda given: batch_spectral_penalty(given["source"], given["target"]),
        "AFN": lambda given: adaptive_feature_norm(given["target"]),
        "NT-Xent": lambda given: nt_xent(given["first"], given["second"], 0.1),
        "negative cosine": lambda given: negative_cosine(given["first"], given["second"]),
        "SIGReg": gaussian,
    }


def of_pytorch_adapt() -> Losses:
    from pytorch_adapt.layers import AdaptiveFeatureNorm, BatchSpectralLoss, CORALLoss, GradientReversal, MCCLoss

    mcc, coral, bsp = MCCLoss(T=2.5), CORALLoss(), BatchSpectralLoss()
    afn, reverse = AdaptiveFeatureNorm(), GradientReversal()

    def dann(given: Inputs) -> Tensor:
        tells = discriminator(given["source"].dtype)
        logits = [tells(reverse(given[name])) for name in ("source", "target")]
        losses = [
            F.binary_cross_entropy_with_logits(row, torch.full_like(row, 1 - at)) for at, row in enumerate(logits)
        ]
        return sum(losses) / 2

    return {
        "MCC": lambda given: mcc(given["logits"]),
        "DANN": dann,
        "CORAL": lambda given: coral(given["source"], given["target"]),
        "BSP": lambda given: bsp(given["source"]) + bsp(given["target"]),
        "AFN": lambda given: afn(given["target"]),
    }


def of_lightly() -> Losses:
    from lightly.loss import NegativeCosineSimilarity, NTXentLoss
    from lightly.loss.lejepa_loss import SIGReg

    nt_xent, cosine, sigreg = NTXentLoss(temperature=0.1), NegativeCosineSimilarity(), SIGReg(num_vectors=DIRECTIONS)

    def gaussian(given: Inputs) -> Tensor:
        torch.manual_seed(0)
        return sigreg(given["first"])

    return {
        "NT-Xent": lambda given: nt_xent(given["first"], given["second"]),
        "negative cosine": lambda given: cosine(given["first"], given["second"].detach()),
        "SIGReg": gaussian,
    }


LIBRARIES = {"hf_transfer": of_hf_transfer, "pytorch_adapt": of_pytorch_adapt, "lightly": of_lightly}


def declare_vision_operators() -> torch.library.Library:
    """Declare what torchvision's import asks for where its compiled part is of another build of torch.

    No loss here calls them. The declaration lasts as long as what is returned.
    """
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return declared


def measure(loss: Callable[[Inputs], Tensor]) -> dict[str, Any]:
    """Value and gradients in float64, median milliseconds of a pass in float32."""
    exact, fast, times = inputs(torch.float64), inputs(torch.float32), []
    value = loss(exact)
    value.backward()
    for _ in range(PASSES):
        started = time.perf_counter()
        loss(fast).backward()
        times.append(1e3 * (time.perf_counter() - started))
    gradients = {name: tensor.grad for name, tensor in exact.items() if tensor.grad is not None}
    return {"value": value.item(), "gradients": gradients, "ms": statistics.median(times)}


def main(library: str, file: str) -> None:
    torch.set_num_threads(1)
    declared = None if library == "hf_transfer" else declare_vision_operators()
    torch.save({name: measure(loss) for name, loss in LIBRARIES[library]().items()}, file)
    del declared


if __name__ == "__main__":
    main(*sys.argv[1:])
