"""Muon for the matrices of hidden layers, AdamW for everything else, as one optimizer.

Muon orthogonalises the momentum of a matrix before it steps. Embeddings, heads, norms, biases and convolutions keep
AdamW, as its author has it. Both are PyTorch's own; the step of a matrix is scaled to the size of one of AdamW
(`match_rms_adamw`), so that one learning rate and one weight decay serve both.

Papers: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon; the scaling: Liu et al., "Muon is Scalable for LLM Training", 2025,
https://huggingface.co/papers/2502.16982.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from hf_transfer.modeling.anatomy import output_layers

NAME = "Muon"
"""Of `torch_optimizer`, by which a configuration asks for it."""


class MuonWithAdamW(torch.optim.Optimizer):
    """One optimizer over groups of parameters, those with `use_muon` by Muon and the others by AdamW.

    Args:
        params: groups, as `muon_groups` makes them.
        lr: where a group has no rate of its own.
        betas, eps: of AdamW.
        weight_decay: of groups that have none of their own.
        momentum: of Muon.

    Raises:
        ValueError: a parameter of a group with `use_muon` is no matrix.
    """

    def __init__(
        self,
        params: Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ):
        groups = [dict(group) for group in params]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "use_muon": False})
        muon, adamw = self._groups(True), self._groups(False)
        self.parts: list[tuple[bool, torch.optim.Optimizer]] = []
        if muon:
            options = {"momentum": momentum, "adjust_lr_fn": "match_rms_adamw"}
            self.parts.append((True, torch.optim.Muon(muon, lr=lr, weight_decay=weight_decay, **options)))
        if adamw:
            options = {"betas": betas, "eps": eps}
            self.parts.append((False, torch.optim.AdamW(adamw, lr=lr, weight_decay=weight_decay, **options)))
        self._share()

    def _groups(self, uses_muon: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["use_muon"] is uses_muon]

    def _share(self) -> None:
        """The parts step on this optimizer's groups, whose rates a schedule sets, and keep their state in its own."""
        for uses_muon, part in self.parts:
            part.param_groups, part.state = self._groups(uses_muon), self.state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "parts" in self.__dict__:
            self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """A step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for _, part in self.parts:
            part.step()
        return loss


def muon_groups(model: nn.Module, groups: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Groups of an optimizer, each parted into the matrices of hidden linear layers and the rest.

    Args:
        model: a Hugging Face or PEFT model; what is trained beside it, such as a discriminator, keeps AdamW.
        groups: with `params` and whatever else an optimizer reads.
    """
    outputs = {id(parameter) for layer in output_layers(model) for parameter in layer.parameters()}
    hidden = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, (nn.Linear, Conv1D)) and id(module.weight) not in outputs
    }
    parted = []
    for group in groups:
        for uses_muon in (True, False):
            own = [parameter for parameter in group["params"] if (id(parameter) in hidden) is uses_muon]
            if own:
                parted.append({**group, "params": own, "use_muon": uses_muon})
    return parted
