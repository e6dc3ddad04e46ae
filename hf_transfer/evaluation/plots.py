"""Pictures of a domain adaptation: loss terms over time, both domains in two dimensions, and confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from hf_transfer.core.objective import SOURCE, TARGET

EMBEDDINGS = ("pca", "tsne")
MOST_NAMES = 30
"""Classes up to which a confusion matrix names each and shows its counts."""
MOST_COLOURS = 20
"""Classes up to which an embedding names their colours."""


@dataclass(frozen=True)
class Cloud:
    """Rows of both domains at one time of the training.

    Args:
        features: [N, D].
        answers: [N], what the model predicts: classes, or floats of a regression; -1 or NaN where nothing is known.
        domain: [N], 0 = source, 1 = target.
        kind: what the answers are, for the title.
    """

    features: np.ndarray
    answers: np.ndarray
    domain: np.ndarray
    kind: str = "predictions"

    @property
    def known(self) -> np.ndarray:
        """[N] bool: which rows have an answer."""
        return ~np.isnan(self.answers) if self.answers.dtype.kind == "f" else self.answers >= 0


def loss_series(log_history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every training loss of a trainer's log, the total first."""
    series: dict[str, list[tuple[int, float]]] = {}
    for entry in log_history:
        for name, value in entry.items():
            if name == "loss" or name.startswith("loss_"):
                series.setdefault(name, []).append((entry["step"], float(value)))
    return series


def plot_losses(log_history: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """A panel for each unweighted loss term and their weighted sum over the steps.

    Args:
        log_history: of a trainer's state.
        path: of the picture.

    Returns:
        False where nothing was logged, so that there is no picture.
    """
    series = loss_series(log_history)
    if not series:
        return False
    figure = Figure(figsize=(3.2 * len(series), 2.6), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(1, len(series), squeeze=False)[0], series.items()):
        steps, values = zip(*points)
        axes.plot(steps, values, marker="." if len(points) < 20 else None)
        axes.set(title="sum" if name == "loss" else name.removeprefix("loss_"), xlabel="step")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    return True


def plot_metrics(log_history: Sequence[Mapping[str, Any]], panels: Mapping[str, Sequence[str]], path: Path) -> bool:
    """A panel for each group of metrics over the steps, a line a metric.

    Args:
        log_history: of a trainer's state.
        panels: title -> names in the log.
        path: of the picture.

    Returns:
        False where none of them was logged, so that there is no picture.
    """
    logged = {name for entry in log_history for name in entry}
    if not logged & {name for names in panels.values() for name in names}:
        return False
    figure = Figure(figsize=(3.6 * len(panels), 2.8), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        for name in names:
            points = [(entry["step"], entry[name]) for entry in log_history if name in entry]
            axes.plot(*zip(*points), marker=".", label=name.removeprefix(f"eval_{title}_"))
        axes.set(title=title, xlabel="step")
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    return True


def embed(features: np.ndarray, method: str = "pca", seed: int = 0) -> np.ndarray:
    """Two dimensions of the rows, [N, D] -> [N, 2].

    Args:
        features: [N, D].
        method: one of `EMBEDDINGS`.
        seed: of t-SNE.
    """
    features = np.asarray(features, dtype=np.float64)
    features = features - features.mean(axis=0)
    if method == "tsne" and len(features) > 4:
        return TSNE(perplexity=min(30.0, (len(features) - 1) / 3), random_state=seed).fit_transform(features)
    indices = PCA(min(2, *features.shape), svd_solver="full").fit_transform(features)
    return np.pad(indices, ((0, 0), (0, 2 - indices.shape[1])))


def plot_domains(
    clouds: Mapping[str, Cloud], path: Path, method: str = "pca", names: Sequence[str] | None = None
) -> None:
    """Both domains in two dimensions: a column for each time, coloured by domain above and by prediction below, where
    a colour means the same everywhere.

    Args:
        clouds: title, such as "before", to rows.
        path: of the picture.
        method: "pca" or "tsne".
        names: of the classes, for the legend; their numbers when left out.
    """
    figure = Figure(figsize=(4 * len(clouds), 7), layout="constrained")
    axes = figure.subplots(2, len(clouds), squeeze=False)
    answers = np.concatenate([cloud.answers[cloud.known] for cloud in clouds.values()])
    is_number = answers.dtype.kind == "f"
    colours = {"cmap": "viridis" if is_number else "tab20", "vmin": answers.min(), "vmax": answers.max()}
    for column, (title, cloud) in enumerate(clouds.items()):
        indices = embed(cloud.features, method)
        for domain, name, mark in ((SOURCE, "source", "o"), (TARGET, "target", "x")):
            rows = cloud.domain == domain
            axes[0, column].scatter(*indices[rows].T, s=9, marker=mark, alpha=0.6, label=name)
            axes[1, column].scatter(*indices[rows & ~cloud.known].T, s=9, marker=mark, c="lightgrey", alpha=0.7)
            rows = rows & cloud.known
            painted = axes[1, column].scatter(
                *indices[rows].T, s=9, marker=mark, c=cloud.answers[rows], alpha=0.7, **colours
            )
        axes[0, column].set_title(f"{title}: domains")
        axes[1, column].set_title(f"{title}: {cloud.kind}")
    axes[0, 0].legend()
    if is_number:
        figure.colorbar(painted, ax=list(axes[1]))
    else:
        _name_colours(axes[1, -1], np.unique(answers), names, colours)
    for one in axes.flat:
        one.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


def _name_colours(axes: Axes, classes: np.ndarray, names: Sequence[str] | None, colours: Mapping[str, Any]) -> None:
    """A legend of the classes beside a panel; none where there are more than colours."""
    if len(classes) > MOST_COLOURS:
        return
    scale = Normalize(colours["vmin"], colours["vmax"])
    for index in classes:
        colour = colormaps[colours["cmap"]](scale(index))
        axes.scatter([], [], s=16, color=[colour], label=str(index if names is None else names[index]))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", title="class")


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """[C, C]: how many rows of each class (first axis) are predicted as each; rows without a label do not count."""
    known = labels >= 0
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels[known], predicted[known]), 1)
    return counts


def plot_confusion(counts: Mapping[str, np.ndarray], names: Sequence[str], path: Path) -> None:
    """Confusion matrices side by side, each row coloured as shares of its class, with the numbers of rows in it.

    Args:
        counts: title to [C, C].
        names: of the classes.
        path: of the picture.
    """
    size = min(7.0, 2.5 + 0.25 * len(names))
    figure = Figure(figsize=(size * len(counts), size), layout="constrained")
    panels = figure.subplots(1, len(counts), squeeze=False)[0]
    for axes, (title, matrix) in zip(panels, counts.items()):
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
        accuracy = np.trace(matrix) / max(matrix.sum(), 1)
        axes.set(title=f"{title}: accuracy {accuracy:.3f}", xlabel="predicted", ylabel="true")
        if len(names) <= MOST_NAMES:
            axes.set_xticks(range(len(names)), names, rotation=90)
            axes.set_yticks(range(len(names)), names)
            for (true, predicted), count in np.ndenumerate(matrix):
                colour = "white" if shares[true, predicted] > 0.5 else "black"
                axes.text(predicted, true, str(count), ha="center", va="center", color=colour, fontsize="x-small")
    figure.colorbar(image, ax=panels)
    figure.savefig(path, dpi=100)
