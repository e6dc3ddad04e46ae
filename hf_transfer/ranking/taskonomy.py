"""Taskonomy: which source tasks to learn when the budget allows only a few.

Affinities. For a target t, W_t[i, j] is the share of test rows on which the transfer from source i has a lower loss
than that from source j (clipped to [.001, .999]). The affinities of t are the principal eigenvector of
W_t[i, j] / W_t[j, i], normalised to sum to one: the analytic hierarchy process, which makes tasks with different
losses comparable.

Choice. A boolean program over transfers x_e (a set of sources S_e to a target t_e) and sources y_s:

    maximise    sum_e importance_{t_e} affinity_e x_e
    subject to  x_e <= y_s for s in S_e,   sum_{e to t} x_e = 1 for every t,   sum_s cost_s y_s <= budget

Paper: Zamir et al., CVPR 2018, https://huggingface.co/papers/1804.08328
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

CLIP = 0.001


@dataclass(frozen=True)
class Transfer:
    """One candidate transfer: from a set of sources (several are a higher-order transfer) to a target."""

    sources: tuple[int, ...]
    target: int
    affinity: float


@dataclass(frozen=True)
class TransferPlan:
    """The chosen sources, the transfer each target gets, and the value of the programme."""

    sources: tuple[int, ...]
    transfers: tuple[Transfer, ...]
    value: float


def task_affinities(losses: Tensor | np.ndarray) -> np.ndarray:
    """Affinities [T, S], each row summing to one, of losses [T, S, N]: target, source, test row.

    Raises:
        ValueError: for losses that are not finite or not three-dimensional.
    """
    losses = np.asarray(losses, dtype=float)
    if losses.ndim != 3 or 0 in losses.shape:
        raise ValueError(f"`losses` should be [targets, sources, rows], got {losses.shape}.")
    if not np.isfinite(losses).all():
        raise ValueError("Some losses are not finite.")
    return np.stack([principal_eigenvector(tournament(target)) for target in losses])


def tournament(losses: np.ndarray) -> np.ndarray:
    """Odds [S, S] that source i beats source j, of losses [S, N]; equal losses count half."""
    wins = np.stack([((row < losses) + 0.5 * (row == losses)).mean(axis=1) for row in losses])
    wins = wins.clip(CLIP, 1 - CLIP)
    return wins / wins.T


def principal_eigenvector(matrix: np.ndarray) -> np.ndarray:
    """Eigenvector of the largest eigenvalue of a positive matrix, all positive and summing to one."""
    values, vectors = np.linalg.eig(matrix)
    principal = np.abs(vectors[:, values.real.argmax()].real)
    return principal / principal.sum()


def single_source_transfers(affinities: np.ndarray) -> list[Transfer]:
    """One transfer for each entry of affinities [T, S]."""
    return [
        Transfer((source,), target, float(affinity))
        for target, row in enumerate(np.asarray(affinities))
        for source, affinity in enumerate(row)
    ]


def choose_sources(
    transfers: Sequence[Transfer],
    budget: float,
    *,
    costs: Sequence[float] | None = None,
    importance: Sequence[float] | None = None,
) -> TransferPlan:
    """The sources to learn within the budget and the transfer to use for each target.

    Args:
        transfers: candidates; every target needs at least one.
        budget: bound on the summed cost of the chosen sources.
        costs: of each source; 1 by default, so that the budget is a number of sources.
        importance: of each target; 1 by default.

    Raises:
        ValueError: when costs or importance have another length, or no choice within the budget serves every target.
    """
    if not transfers:
        raise ValueError("`transfers` is empty: there is nothing to choose from.")
    targets = sorted({transfer.target for transfer in transfers})
    sources = sorted({source for transfer in transfers for source in transfer.sources})
    costs = check_length("costs", costs, sources[-1] + 1)
    importance = check_length("importance", importance, targets[-1] + 1)
    gains = [importance[transfer.target] * transfer.affinity for transfer in transfers]
    objective = -np.concatenate([gains, np.zeros(len(sources))])
    solution = milp(
        objective,
        constraints=programme(transfers, sources, targets, costs[sources], budget),
        integrality=np.ones(len(objective)),
        bounds=Bounds(0, 1),
    )
    if solution.x is None:
        raise ValueError(f"No choice of sources within a budget of {budget} serves every target: {solution.message}")
    chosen = solution.x > 0.5
    used = tuple(transfer for transfer, is_chosen in zip(transfers, chosen) if is_chosen)
    kept = tuple(sorted({source for transfer in used for source in transfer.sources}))
    return TransferPlan(kept, used, float(-objective @ chosen))


def check_length(name: str, values: Sequence[float] | None, length: int) -> np.ndarray:
    if values is None:
        return np.ones(length)
    if len(values) < length:
        raise ValueError(f"`{name}` should have at least {length} entries, got {len(values)}.")
    return np.asarray(values, dtype=float)


def programme(
    transfers: Sequence[Transfer],
    sources: Sequence[int],
    targets: Sequence[int],
    costs: np.ndarray,
    budget: float,
) -> list[LinearConstraint]:
    """Linear constraints on (x of every transfer, y of every source)."""
    edges, nodes = len(transfers), {source: index for index, source in enumerate(sources)}
    needs = [(edge, nodes[source]) for edge, transfer in enumerate(transfers) for source in transfer.sources]
    implied = np.zeros((len(needs), edges + len(sources)))
    for row, (edge, node) in enumerate(needs):
        implied[row, edge], implied[row, edges + node] = 1, -1
    served = np.zeros((len(targets), edges + len(sources)))
    for edge, transfer in enumerate(transfers):
        served[targets.index(transfer.target), edge] = 1
    spent = np.concatenate([np.zeros(edges), costs])[None]
    return [LinearConstraint(implied, ub=0), LinearConstraint(served, lb=1, ub=1), LinearConstraint(spent, ub=budget)]
