"""Pictures of a domain adaptation: loss terms over time, both domains in two dimensions, and confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from hf_transfer.objective import SOURCE, TARGET

EMBEDDINGS = ("pca", "tsne")
MOST_NAMES = 30
"""Classes up to which a confusion matrix names each."""


@dataclass(frozen=True)
class Cloud:
    """Rows of both domains at one time of the training.

    Args:
        features: [N, D].
        answers: [N], what the model predicts: classes, or floats of a regression.
        domain: [N], 0 = source, 1 = target.
    """

    features: np.ndarray
    answers: np.ndarray
    domain: np.ndarray


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
    places = PCA(min(2, *features.shape), svd_solver="full").fit_transform(features)
    return np.pad(places, ((0, 0), (0, 2 - places.shape[1])))


def plot_domains(clouds: Mapping[str, Cloud], path: Path, method: str = "pca") -> None:
    """Both domains in two dimensions: a column for each time, coloured by domain above and by prediction below, where
    a colour means the same everywhere.

    Args:
        clouds: title, such as "before", to rows.
        path: of the picture.
        method: "pca" or "tsne".
    """
    figure = Figure(figsize=(4 * len(clouds), 7), layout="constrained")
    axes = figure.subplots(2, len(clouds), squeeze=False)
    answers = np.concatenate([cloud.answers for cloud in clouds.values()])
    names = "viridis" if answers.dtype.kind == "f" else "tab20"
    colours = {"cmap": names, "vmin": answers.min(), "vmax": answers.max()}
    for column, (title, cloud) in enumerate(clouds.items()):
        places = embed(cloud.features, method)
        for domain, name, mark in ((SOURCE, "source", "o"), (TARGET, "target", "x")):
            rows = cloud.domain == domain
            axes[0, column].scatter(*places[rows].T, s=9, marker=mark, alpha=0.6, label=name)
            axes[1, column].scatter(*places[rows].T, s=9, marker=mark, c=cloud.answers[rows], alpha=0.7, **colours)
        axes[0, column].set_title(f"{title}: domains")
        axes[1, column].set_title(f"{title}: predictions")
    axes[0, 0].legend()
    for one in axes.flat:
        one.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """[C, C]: how many rows of each class (first axis) are predicted as each; rows without a label do not count."""
    known = labels >= 0
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels[known], predicted[known]), 1)
    return counts


def plot_confusion(counts: Mapping[str, np.ndarray], names: Sequence[str], path: Path) -> None:
    """Confusion matrices side by side, each row as shares of its class.

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
    figure.colorbar(image, ax=panels)
    figure.savefig(path, dpi=100)
