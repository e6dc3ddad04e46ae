"""The two terms of the margin disparity discrepancy bound that can be estimated: source error and disparity.

    score = -( E_source 1[f(x) != y] + sup over f' of E_target 1[f' != f] - E_source 1[f' != f] )

f' is a small perceptron on the features. It is fitted on half of the rows, on the smooth surrogate of MDD with margin
factor 1, and the disagreements are counted on the other half; both halves take each part once. Without the source
error a model that predicts one class everywhere would be the best.

Paper: Zhang et al., "Bridging Theory and Algorithm for Domain Adaptation", ICML 2019,
https://huggingface.co/papers/1904.05801
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hf_transfer.domain_adaptation.mdd import margin_disparity_discrepancy
from hf_transfer.objective import SOURCE, TARGET
from hf_transfer.validators.rows import labelled_source, split_halves, target_rows
from hf_transfer.validators.source_accuracy import source_accuracy

WIDTH, STEPS = 64, 200
"""Hidden units of the adversary, and full-batch steps of fitting it."""


def mdd(features: Tensor, logits: Tensor, domain: Tensor | None, labels: Tensor | None = None, seed: int = 0) -> float:
    """Minus source error minus held-out disparity.

    Args:
        features: [N, D].
        logits: [N, C], C >= 2.
        domain: [N], 0 = source, 1 = target.
        labels: [N] integers; those of source rows are read.
        seed: of the split into halves and the adversary's first weights.

    Raises:
        ValueError: there is no `domain`, no labels, or fewer than two rows of either domain.
    """
    labelled_source(domain, labels)
    target_rows(features, domain)
    source_error = 1.0 - source_accuracy(features, logits, domain, labels)
    return -(source_error + held_out_disparity(features.float(), logits.float(), domain, seed))


def held_out_disparity(features: Tensor, logits: Tensor, domain: Tensor, seed: int = 0) -> float:
    """E_target 1[f' != f] - E_source 1[f' != f] of a fitted adversary, on rows it was not fitted on.

    Args:
        features: [N, D].
        logits: [N, C].
        domain: [N], 0 = source, 1 = target.
        seed: of the split into halves and the adversary's first weights.
    """
    features = (features - features.mean(dim=0)) / features.std(dim=0).clamp_min(1e-8)
    first = torch.from_numpy(split_halves(domain.numpy(force=True), seed)).to(domain.device)
    values = []
    for fitted, counted in ((first, ~first), (~first, first)):
        adversary = fit_adversary(features[fitted], logits[fitted], domain[fitted], seed)
        disagrees = (adversary(features[counted]).argmax(dim=1) != logits[counted].argmax(dim=1)).double()
        values.append(disagrees[domain[counted] == TARGET].mean() - disagrees[domain[counted] == SOURCE].mean())
    return (sum(values) / 2).item()


@torch.enable_grad()
def fit_adversary(features: Tensor, logits: Tensor, domain: Tensor, seed: int = 0) -> nn.Module:
    """The f' that agrees with f on the source rows and disagrees on the target rows, as far as it can."""
    generator = torch.Generator().manual_seed(seed)
    adversary = nn.Sequential(nn.Linear(features.shape[1], WIDTH), nn.ReLU(), nn.Linear(WIDTH, logits.shape[1]))
    for layer in (adversary[0], adversary[2]):
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
        nn.init.zeros_(layer.bias)
    adversary.to(features)
    source, target = domain == SOURCE, domain == TARGET
    optimizer = torch.optim.AdamW(adversary.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(STEPS):
        answers = adversary(features)
        disparity = margin_disparity_discrepancy(
            logits[source], answers[source], logits[target], answers[target], margin=1.0
        )
        optimizer.zero_grad()
        (-disparity).backward()
        optimizer.step()
    return adversary.requires_grad_(False)
