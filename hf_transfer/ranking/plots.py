"""Figures of a ranking: bars with error bars, parameters and seconds; and a heat map of the layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hf_transfer.ranking.row import RankingRow, best_layer, score_names
from hf_transfer.ranking.score import Score

LONGEST_NAME = 40
COLUMNS = 3


def short_name(name: str) -> str:
    """The end of a long name, which tells models apart."""
    return name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]


def scores_of(rows: Sequence[RankingRow], score: str) -> dict[str, list[Mapping[int, Score]]]:
    """Every score's layers of each row, by the names of the scores; the one that orders the ranking first."""
    _, *others = score_names(rows, score)
    further = {name: [row.others.get(name, {}) for row in rows] for name in others}
    return {score: [row.layers for row in rows], **further}


def best_of(layers: Mapping[int, Score]) -> tuple[float, float]:
    """The value and the standard error of the best layer; nan without any."""
    if not layers:
        return np.nan, 0.0
    best = best_layer(layers)[1]
    return best.value, best.standard_error or 0.0


def plot_ranking(rows: Sequence[RankingRow], score: str, path: Path) -> None:
    """Bar charts, best model on top: every score with its standard error, parameters, seconds; three in a line."""
    panels = []
    for name, layers in scores_of(rows, score).items():
        values, errors = zip(*(best_of(one) for one in layers))
        panels.append((name, values, errors, "linear"))
    panels.append(("parameters", [row.parameters or 0 for row in rows], None, "log"))
    panels.append(("seconds", [row.seconds for row in rows], None, "linear"))
    lines = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(11, lines * (1.6 + 0.35 * len(rows))), layout="constrained")
    every = figure.subplots(lines, COLUMNS, sharey=True, squeeze=False)
    for axis, (title, values, spread, scale) in zip(every.flat, panels):
        axis.barh(range(len(rows)), values, xerr=spread, capsize=3, color="#4c72b0")
        axis.set_xscale(scale)
        axis.set_title(title)
        axis.grid(axis="x", alpha=0.3)
    for axis in every.flat[len(panels) :]:
        axis.set_axis_off()
    every[0, 0].set_yticks(range(len(rows)), [short_name(row.model) for row in rows])
    every[0, 0].invert_yaxis()
    figure.savefig(path, dpi=100)


def plot_layers(rows: Sequence[RankingRow], score: str, path: Path) -> None:
    """A heat map a score, one row a model and one column a layer; models of fewer layers leave cells empty."""
    scores = {name: layers for name, layers in scores_of(rows, score).items() if any(layers)}
    deepest = max(max(layers, default=0) for every in scores.values() for layers in every)
    lines, columns = math.ceil(len(scores) / COLUMNS), min(COLUMNS, len(scores))
    size = (2.5 + columns * (1.5 + 0.3 * (deepest + 3)), lines * (1.6 + 0.35 * len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    every = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axis, (name, layers) in zip(every.flat, scores.items()):
        values = np.full((len(rows), deepest + 1), np.nan)
        for index, one in enumerate(layers):
            for layer, result in one.items():
                values[index, layer] = result.value
        figure.colorbar(axis.imshow(values, aspect="auto", cmap="viridis"), ax=axis)
        axis.set_xlabel("layer (0 = embeddings)")
        axis.set_title(name)
    for axis in every.flat[len(scores) :]:
        axis.set_axis_off()
    every[0, 0].set_yticks(range(len(rows)), [short_name(row.model) for row in rows])
    figure.savefig(path, dpi=100)
