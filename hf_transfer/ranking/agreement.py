"""Whether the scores of a ranking agree: rank correlation of their orders, and which model each puts first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from scipy.stats import weightedtau

# The values of the scores of each model.
Models = Mapping[str, Mapping[str, float]]

TITLES = {
    "gbc": "GBC",
    "h_score": "H-score",
    "knn": "kNN accuracy",
    "leep": "LEEP",
    "linear_probe": "linear probe accuracy",
    "logme": "LogME",
    "nce": "NCE",
    "shrunk_h_score": "shrunk H-score",
    "trans_rate": "TransRate",
}
"""Names of the scores in sentences."""


def title(score: str) -> str:
    return TITLES.get(score, score)


def agreements(models: Models, scores: Sequence[str]) -> dict[tuple[str, str], float]:
    """Weighted Kendall tau, -1 to 1, of each pair of scores over the models that have both.

    Pairs of scores with fewer than two such models, or that are the same for all of them, are left out.

    Paper: Vigna, WWW 2015, https://doi.org/10.1145/2736277.2741088
    """
    found = {}
    for pair in combinations(scores, 2):
        both = [values for values in models.values() if all(score in values for score in pair)]
        if len(both) > 1:
            tau = float(weightedtau(*([values[score] for values in both] for score in pair)).statistic)
            if math.isfinite(tau):
                found[pair] = tau
    return found


def agreement_in_words(models: Models, scores: Sequence[str]) -> list[str]:
    """What each pair of scores has in common, and whether they agree on the first model; models stand best first."""
    taus = agreements(models, scores)
    if not taus:
        return []
    pairs = ", ".join(f"{title(one)} and {title(other)} {tau:.2f}" for (one, other), tau in taus.items())
    firsts: dict[str, list[str]] = {}
    for score in scores:
        having = [name for name in models if score in models[name]]
        # `max` keeps the first of equal ones.
        best = max(having, key=lambda name: models[name][score], default=None)
        if best is not None:
            firsts.setdefault(best, []).append(title(score))
    told = f"Agreement of the orders (weighted Kendall tau, -1 to 1): {pairs}."
    if len(firsts) == 1:
        return [told, f"Every score puts {next(iter(firsts))} first."]
    choices = "; ".join(f"{' and '.join(names)}: {name}" for name, names in firsts.items())
    return [
        told,
        f"The scores disagree about the first model ({choices}): fine-tune these on some rows before you choose.",
    ]
