"""Which models to keep for several targets within a budget, by their saved rankings: Taskonomy's choice.

    affinity_t = principal eigenvector of P_t(i > j) / P_t(j > i)
    maximise  sum_t affinity_t(start of t)  over sets of models whose summed cost is within the budget

P_t(i > j) is the probability that model i has the higher expected score for target t than model j, which takes the
place of the share of test rows in the paper: nothing is fine-tuned for the choice. It is clipped as there. Where the
uncertainty of a score is not known it is 0 or 1. Each target starts from the kept model of its highest affinity.

Paper: Zamir et al., "Taskonomy", CVPR 2018, https://huggingface.co/papers/1804.08328
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hf_transfer.ranking.ranking import Ranking
from hf_transfer.ranking.row import RankingRow
from hf_transfer.ranking.score import probability_of_beating
from hf_transfer.ranking.taskonomy import CLIP, Transfer, choose_sources, principal_eigenvector

COSTS = ("models", "parameters")


@dataclass(frozen=True)
class BudgetedChoice:
    """The models to keep.

    Args:
        models: their names.
        starts: target -> the one that it starts from.
        affinities: target -> that model's affinity; those of all its candidates sum to 1.
        cost: of the kept models together.
    """

    models: tuple[str, ...]
    starts: Mapping[str, str]
    affinities: Mapping[str, float]
    cost: float


def budgeted_choice(rankings: Mapping[str, Ranking], budget: float, cost: str = "models") -> BudgetedChoice:
    """Choose models that serve all targets.

    Args:
        rankings: target -> the ranking of the candidates for it.
        budget: bound on the summed cost of the chosen models.
        cost: "models", each 1, or "parameters".

    Raises:
        ValueError: no ranking or one without a scored model, an unknown cost, a model whose parameters are not known,
            or no choice within the budget serves every target.
    """
    if cost not in COSTS:
        raise ValueError(f"`cost` should be one of {list(COSTS)}, got {cost!r}.")
    if not rankings:
        raise ValueError("there is nothing to choose from: give the folder of at least one saved ranking.")
    rows = {row.model: row for ranking in rankings.values() for row in ranking.candidates}
    names = list(rows)
    transfers = []
    for target, (label, ranking) in enumerate(rankings.items()):
        if not ranking.candidates:
            raise ValueError(f"the ranking `{label}` has no scored model: rank again.")
        affinities = principal_eigenvector(odds(ranking.candidates))
        for row, affinity in zip(ranking.candidates, affinities, strict=True):
            transfers.append(Transfer((names.index(row.model),), target, float(affinity)))
    costs = [cost_of(rows[name], cost) for name in names]
    plan = choose_sources(transfers, budget, costs=costs)
    used = {list(rankings)[one.target]: one for one in plan.transfers}
    return BudgetedChoice(
        tuple(names[index] for index in plan.sources),
        {label: names[used[label].sources[0]] for label in rankings},
        {label: used[label].affinity for label in rankings},
        sum(costs[index] for index in plan.sources),
    )


def odds(rows: Sequence[RankingRow]) -> np.ndarray:
    """Odds [M, M] that the model of one row has a higher expected score than that of another."""
    chances = np.array([[chance(first, second) for second in rows] for first in rows]).clip(CLIP, 1 - CLIP)
    return chances / chances.T


def chance(first: RankingRow, second: RankingRow) -> float:
    """Probability that the first model has the higher expected score; 1/2 of a model and itself."""
    if first is second:
        return 0.5
    known = probability_of_beating(first.layers[first.layer], second.layers[second.layer])
    return (1 + np.sign(first.score - second.score)) / 2 if known is None else known


def cost_of(row: RankingRow, cost: str) -> float:
    """What a model counts in the budget.

    Raises:
        ValueError: its parameters are asked for and not known.
    """
    if cost == "models":
        return 1.0
    if row.parameters is None:
        raise ValueError(f"the ranking does not say how many parameters `{row.model}` has: choose by `models`.")
    return float(row.parameters)
