"""What the guard decides over all runs of the domain-adaptation benchmarks, from the scores that these have kept.

The guard (`guard: true`) keeps an adapted model where the validator does not prefer source only of the same seed.
Nothing is trained here: both models are there, with what every validator says of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from domain_adaptation_pairs import measure_of
from domain_adaptation_tables import baseline_of, gains

from hf_transfer.validators import VALIDATORS

CLEARLY = 2.0
"""Points from which on a model that is kept is clearly worse than source only."""


class Decision(NamedTuple):
    """One adapted model beside source only.

    Args:
        gain: points over source only on the same seed.
        kept: by the validator.
    """

    gain: float
    kept: bool


def decisions(pair: str, table: dict[str, Any], validator: str) -> Iterator[Decision]:
    """Of all runs of a pair whose models the validator scores."""
    for method, row in table.items():
        for seed, gain in gains(pair, method, table).items():
            runs = row["runs"][seed], table[baseline_of(method, table)]["runs"][seed]
            scores = [run.get("validators", {}).get(validator) for run in runs]
            if all(score is not None and math.isfinite(score) for score in scores):
                yield Decision(measure_of(pair).sign * gain, scores[0] >= scores[1])


def cells_of(found: list[Decision]) -> str:
    """How often each decision was right or wrong, and the points that it is worth."""
    counts = [sum(one.kept == kept and (one.gain >= 0) == kept for one in found) for kept in (True, False)]
    wrong = [sum(one.kept == kept and (one.gain >= 0) != kept for one in found) for kept in (True, False)]
    clearly = sum(one.kept and one.gain <= -CLEARLY for one in found)
    kept = sum(one.gain for one in found if one.kept)
    points = (sum(one.gain for one in found), kept, sum(max(one.gain, 0.0) for one in found))
    means = " | ".join(f"{total / len(found):+.1f}" for total in points)
    return f"{len(found)} | {counts[0]} | {wrong[0]} ({clearly}) | {counts[1]} | {wrong[1]} | {means}"


COUNTS = "runs | kept rightly | kept wrongly (clearly) | dropped rightly | dropped wrongly"
COLUMNS = f"{COUNTS} | always | guarded | at best |"


def guard_lines(pairs: dict[str, Any], validator: str) -> list[str]:
    """Rows of Markdown: the guard by this validator on each pair of classes, and by every one over all of them."""
    found = {pair: list(decisions(pair, table, validator)) for pair, table in pairs.items()}
    found = {pair: rows for pair, rows in found.items() if rows}
    if not found:
        return []
    lines = [
        f"The guard by `{validator}` keeps an adapted model that this does not score below source only of the same "
        f"seed; rightly, where it is not less accurate on held-out target rows, and clearly wrongly, where it is "
        f"{CLEARLY:g} points or more below. Points over source only, the mean over all runs: of adapting always, of "
        "what the guard keeps, and of a guard that knew the target's labels.",
        "",
        f"| pair | {COLUMNS}",
        "|---|" + "--:|" * 8,
        *(f"| {pair} | {cells_of(rows)} |" for pair, rows in found.items()),
        "",
        "The same over all these pairs by every validator, of the runs that it scores:",
        "",
        f"| validator | {COLUMNS}",
        "|---|" + "--:|" * 8,
    ]
    for name in VALIDATORS:
        everywhere = [one for pair in found for one in decisions(pair, pairs[pair], name)]
        lines += [f"| {name} | {cells_of(everywhere)} |"] if everywhere else []
    return lines
