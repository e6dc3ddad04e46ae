"""Successive halving over a list of settings: all train for a short time, the better half for twice as long.

    n settings, r = ceil(log2 n) rounds; in round i = 0 .. r - 1 every setting that is left trains for S / 2^(r - i) of
    S steps, and ceil(half) of them stay. The last one then trains for all S steps with every seed.

A training of a round starts anew, so that its learning rate runs through the whole schedule. Equal scores favour the
earlier setting. Paper: Jamieson and Talwalkar, AISTATS 2016, https://huggingface.co/papers/1502.07943
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def rounds_of(count: int, steps: int) -> list[tuple[int, int]]:
    """(settings, steps of each) of every round.

    Args:
        count: of the settings.
        steps: of a whole training.
    """
    number = math.ceil(math.log2(count)) if count > 1 else 0
    found = []
    for place in range(number):
        found.append((count, max(1, round(steps / 2 ** (number - place)))))
        count = math.ceil(count / 2)
    return found


def halve(
    settings: Sequence[Mapping[str, Any]],
    steps: Callable[[Mapping[str, Any]], int],
    score: Callable[..., float | None],
) -> tuple[Mapping[str, Any], list[dict[str, Any]]]:
    """The setting that is left, and what was tried.

    Args:
        settings: at least one.
        steps: of a whole training with a setting.
        score: (setting, steps) -> higher is better; None where the training diverged.

    Raises:
        ValueError: every training of a round diverged.
    """
    left, trials = list(range(len(settings))), []
    for number, _ in enumerate(rounds_of(len(settings), 1)):
        scores = {}
        for place in left:
            taken = rounds_of(len(settings), steps(settings[place]))[number][1]
            scores[place] = score(settings[place], taken)
            trials.append({"setting": dict(settings[place]), "steps": taken, "score": scores[place]})
        if all(value is None for value in scores.values()):
            raise ValueError(f"every training of the search diverged: {[dict(settings[place]) for place in left]}.")
        left.sort(key=lambda place: (-math.inf if scores[place] is None else scores[place], -place), reverse=True)
        left = sorted(left[: math.ceil(len(left) / 2)])
    return settings[left[0]], trials
