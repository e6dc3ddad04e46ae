"""Domain-specific batch normalisation: every domain has batch-norm statistics, weights and biases of its own.

    y = weight_d (x - mean_d) / sqrt(var_d + eps) + bias_d   for a row of domain d

In training mean_d and var_d are those of the rows of domain d in the batch, and each domain's moving statistics follow
its own rows. All else is shared. A model starts with the same norms for all domains.

The target's norms are the model's own: a saved folder is an ordinary model for the target. Those of the other domains
stand beside it, in `objectives.safetensors` of a checkpoint. Rows without a domain are taken for the target's.

Paper: Chang et al., "Domain-Specific Batch Normalization for Unsupervised Domain Adaptation", CVPR 2019,
https://huggingface.co/papers/1906.03950.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_transfer.core.converter import converts
from hf_transfer.core.objective import TARGET
from hf_transfer.modeling.surgery import Sidecar, keep_sidecar, modules_where, reclass


@converts()
def convert(model: nn.Module, *, num_domains: int = 2, target: int = TARGET) -> nn.Module:
    """Give every domain batch norms of its own, in place; names and values of the model's parameters stay.

    Args:
        model: a Hugging Face model with batch norms.
        num_domains: how many domains the column `domain` numbers, from 0.
        target: the one whose norms are the model's own.

    Raises:
        ValueError: a keyword is out of its range, the model has no batch norm, or was converted before; in training, a
            domain that is not below `num_domains`.
    """
    if num_domains < 2 or not 0 <= target < num_domains:
        raise ValueError(f"`num_domains` should be at least 2 and `target` below it, got {num_domains} and {target}.")
    norms = modules_where(model, lambda one: isinstance(one, _BatchNorm))
    if not norms:
        raise ValueError(f"`dsbn`: {type(model).__name__} has no batch norm, whose domains could differ.")
    sidecar = DomainNorms(norms, num_domains, target)
    keep_sidecar(model, "dsbn", sidecar)
    for name, norm in norms.items():
        reclass(norm, DomainSpecific, domains=sidecar, others=sidecar.norms[name.replace(".", "_")])
    return model


convert.paper = "1906.03950"


class DomainNorms(Sidecar):
    """Batch norms of all domains but the target, and the domain of the rows that the model reads now."""

    def __init__(self, norms: Mapping[str, nn.Module], num_domains: int, target: int):
        super().__init__()
        self.needs = frozenset({"domain"} if num_domains == 2 else {"environments"})
        self.num_domains = num_domains
        self.target = target
        self.rows: list[Tensor] | None = None
        self.was_training = False
        self.norms = nn.ModuleDict(
            {
                name.replace(".", "_"): nn.ModuleList(copy.deepcopy(norm) for _ in range(num_domains - 1))
                for name, norm in norms.items()
            }
        )

    def begin(self, domain: Tensor | None) -> None:
        """Note the places of every domain's rows."""
        self.was_training = self.training
        self.rows = None if domain is None else [(domain == d).nonzero().flatten() for d in range(self.num_domains)]
        if domain is not None and sum(map(len, self.rows)) < len(domain):
            raise ValueError(f"`domain` should be from 0 to {self.num_domains - 1}, got {domain.unique().tolist()}.")


class DomainSpecific:
    """The forward of a batch norm that lets each domain's rows through its own; mixed into the norm's own class."""

    def forward(self, states: Tensor, *args: Tensor | None) -> Tensor:
        if self.domains.rows is None or self.domains.was_training != self.training:
            return super().forward(states, *args)
        if sum(map(len, self.domains.rows)) != len(states):
            raise ValueError(f"a batch norm reads {len(states)} rows, and the batch's `domain` has another number.")
        pieces, others = [], iter(self.others)
        for domain, rows in enumerate(self.domains.rows):
            norm = super().forward if domain == self.domains.target else next(others).train(self.training)
            if len(rows):
                pieces.append(norm(states[rows], *(arg if arg is None else arg[rows] for arg in args)))
        return torch.cat(pieces)[torch.cat(self.domains.rows).argsort()]
