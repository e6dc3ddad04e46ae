"""How far an adversary departs from a model on the target and not on the source, counted on rows it has not seen.

disparity = E_target gap(f', f) - E_source gap(f', f),   f' of a supremum over perceptrons on the features
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hf_transfer.core.objective import SOURCE, TARGET
from hf_transfer.functional.hypotheses import fit, perceptron, standardised
from hf_transfer.validators.rows import split_halves


def held_out_supremum(
    features: Tensor,
    answers: Tensor,
    domain: Tensor,
    surrogate: Callable[[Tensor, Tensor, Tensor], Tensor],
    gap: Callable[[Tensor, Tensor], Tensor],
    seed: int = 0,
) -> float:
    """The disparity of an adversary that is fitted on one half of the rows and counted on the other; both halves take
    each part once, and the mean of both counts.

    Args:
        features: [N, D].
        answers: [N, C] of the model.
        domain: [N], 0 = source, 1 = target.
        surrogate: of the adversary's outputs, the answers and the domain of some rows, the smooth disparity to ascend.
        gap: of outputs and answers, [M] for M rows.
        seed: of the split into halves and the adversary's first weights.

    Raises:
        ValueError: a domain has fewer than two rows.
    """
    features, answers = standardised(features.detach()), answers.detach()
    first = torch.from_numpy(split_halves(domain.numpy(force=True), seed)).to(domain.device)
    values = []
    for fitted, counted in ((first, ~first), (~first, first)):
        generator = torch.Generator().manual_seed(seed)
        adversary = perceptron(features.shape[1], answers.shape[1], generator).to(features)
        rows = features[fitted], answers[fitted], domain[fitted]
        fit(adversary, lambda adversary=adversary, rows=rows: -surrogate(adversary(rows[0]), *rows[1:]))
        gaps = gap(adversary(features[counted]), answers[counted]).double()
        values.append(gaps[domain[counted] == TARGET].mean() - gaps[domain[counted] == SOURCE].mean())
    return (sum(values) / 2).item()
