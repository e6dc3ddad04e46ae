"""Representation subspace distance, for regression: aligns the directions of the features, not their scale.

    F_source^T = U_s S_s V_s^T,  F_target^T = U_t S_t V_t^T,  U_s^T U_t = P cos(theta) Q^T
    loss = ||sin(theta)||_1 + bases_mismatch * || |P| - |Q| ||_F

theta are the principal angles between the two feature subspaces. The second term matches principal directions of the
same importance. Frobenius distances would shrink the features, whose scale carries a regression's answer.

Paper: Chen et al., "Representation Subspace Distance for Domain Adaptation Regression", ICML 2021,
https://proceedings.mlr.press/v139/chen21u.html. Weight 1e-3 and mismatch .1 as in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_transfer.core.objective import Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.domain_adaptation.two_domains import has_both_domains
from hf_transfer.functional.keyword_checks import require_non_negative

SAME_DIRECTION = {torch.float64: 1e-12}
"""How far the cosine of two directions may be from 1 for them to be the same, by the precision of the features."""
SAME_IN_LESS = 1e-8


def principal_basis(features: Tensor, precision: torch.dtype | None = None) -> Tensor:
    """Orthonormal basis of the row space in the order of the singular values, [B, D] -> [D, rank].

    Rows that depend on others are folded away first: the gradient of singular vectors divides by the gaps between
    singular values, and zeros have none.

    Args:
        features: [B, D].
        precision: in which they were computed, below whose rounding error a singular value counts as zero; that of
            `features` when left out.
    """
    tolerance = max(features.shape) * torch.finfo(precision or features.dtype).eps
    with torch.no_grad():
        _, values, right = torch.linalg.svd(features.T, full_matrices=False)
        rank = int((values > tolerance * values[0]).sum())
    return torch.linalg.svd(features.T @ right[:rank].T, full_matrices=False).U


def representation_subspace_distance(source: Tensor, target: Tensor, bases_mismatch: float = 0.1) -> Tensor:
    """Sum of the sines of the principal angles plus the weighted mismatch of the bases, a scalar; computed in float64.

    Args:
        source: [n, D].
        target: [m, D].
        bases_mismatch: factor of the second term.

    Raises:
        ValueError: the subspaces share several directions exactly, as they must when n + m > D + 1 or when the
            features of both domains vary in few directions.
    """
    bases = [principal_basis(features.double(), features.dtype) for features in (source, target)]
    p, cosines, q_transposed = torch.linalg.svd(bases[0].T @ bases[1], full_matrices=False)
    shared = int((cosines > 1.0 - SAME_DIRECTION.get(source.dtype, SAME_IN_LESS)).sum())
    if shared > 1:
        raise ValueError(_shared_directions(shared, source, target, [basis.shape[1] for basis in bases]))
    # The sine's slope is infinite at angle 0; the offset bounds it at 1e4.
    sines = (1.0 - cosines.square()).clamp_min(1e-8).sqrt()
    rows = min(len(p), q_transposed.shape[1])
    mismatch = (p[:rows].abs() - q_transposed.T[:rows].abs()).norm()
    return (sines.sum() + bases_mismatch * mismatch).to(source.dtype)


def _shared_directions(shared: int, source: Tensor, target: Tensor, ranks: list[int]) -> str:
    rows, width = (len(source), len(target)), source.shape[1]
    what = f"the features of both domains share {shared} directions exactly, which leaves the principal directions "
    if sum(rows) > width + 1:
        return (
            f"{what}undefined: RSD needs batches with at most as many rows as features ({width}); here "
            f"{rows[0]} + {rows[1]}."
        )
    return (
        f"{what}undefined: the {rows[0]} source rows span {ranks[0]} directions of {width} and the {rows[1]} target "
        f"rows {ranks[1]}, and they overlap. The features vary in few directions: use fewer rows in a batch than they "
        "have, or another objective."
    )


class RSD(Objective):
    """Representation subspace distance between the features of the two domains.

    Args:
        bases_mismatch: factor of the bases mismatch penalty.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `bases_mismatch` is negative.
    """

    paper = "https://proceedings.mlr.press/v139/chen21u.html"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "domain", "global_batch"})

    def __init__(self, bases_mismatch: float = 0.1, weight: float = 1e-3):
        super().__init__(weight)
        require_non_negative(bases_mismatch=bases_mismatch)
        self.bases_mismatch = bases_mismatch

    def forward(self, view: View) -> Tensor:
        if not has_both_domains(view):
            return no_loss(view)
        return representation_subspace_distance(view.source.features, view.target.features, self.bases_mismatch)
