"""Figures of a ranking: bars with error bars, parameters and seconds; and a heat map of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from hf_transfer.ranking.ranking import RankingRow

LONGEST_NAME = 40


def short_name(name: str) -> str:
    """The end of a long name, which tells models apart."""
    return name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]


def plot_ranking(rows: Sequence[RankingRow], score: str, path: Path) -> None:
    """Three bar charts side by side, best model on top: score with its standard error, parameters, seconds."""
    names = [short_name(row.model) for row in rows]
    errors = [row.standard_error or 0.0 for row in rows]
    panels = (
        (score, [row.score for row in rows], errors, "linear"),
        ("parameters", [row.parameters or 0 for row in rows], None, "log"),
        ("seconds", [row.seconds for row in rows], None, "linear"),
    )
    figure = Figure(figsize=(11, 1.6 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True, width_ratios=(2, 1, 1))
    for axis, (title, values, spread, scale) in zip(axes, panels):
        axis.barh(range(len(rows)), values, xerr=spread, capsize=3, color="#4c72b0")
        axis.set_xscale(scale)
        axis.set_title(title)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(rows)), names)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=120)


def plot_layers(rows: Sequence[RankingRow], score: str, path: Path) -> None:
    """A heat map, one row a model and one column a layer; models of fewer layers leave cells empty."""
    deepest = max(max(row.layers) for row in rows)
    values = np.full((len(rows), deepest + 1), np.nan)
    for place, row in enumerate(rows):
        for layer, result in row.layers.items():
            values[place, layer] = result.value
    figure = Figure(figsize=(2.5 + 0.45 * (deepest + 6), 1.6 + 0.35 * len(rows)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(values, aspect="auto", cmap="viridis")
    axis.set_yticks(range(len(rows)), [short_name(row.model) for row in rows])
    axis.set_xlabel("layer (0 = embeddings)")
    axis.set_title(score)
    figure.colorbar(image)
    figure.savefig(path, dpi=120)
