"""GBC: overlap of the classes, each taken as a Gaussian of the features' principal components.

    GBC = - sum_{c != k} exp(-D_B(c, k))
    D_B = 1/8 sum_d (mu_cd - mu_kd)^2 / v_d + 1/2 sum_d log(v_d / sqrt(v_cd v_kd)),   v_d = (v_cd + v_kd) / 2

Zero is no overlap at all. The first 64 principal components and one variance a class ("spherical") are the paper's; a
variance is at least 1e-4, so that a class of one row is not infinitely sharp.

With one variance a class the second sum has D equal terms, as the distance of two Gaussians in D dimensions has. The
released code takes the term once, and so orders models otherwise where the classes' variances differ (Kendall's tau of
the two is about .9); the shape "released" does as it does.

Paper: Pandy et al., CVPR 2022, https://huggingface.co/papers/2111.12780
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_transfer.ranking.reservoir import ReservoirScore
from hf_transfer.ranking.score import Statistics, check_classes

SHAPES = ("spherical", "diagonal", "released")
SMALLEST_VARIANCE = 1e-4


def check_shape(shape: str) -> None:
    if shape not in SHAPES:
        raise ValueError(f"`shape` should be one of {list(SHAPES)}, got {shape!r}.")


def principal_components(features: Tensor, components: int | None) -> Tensor:
    """Coordinates of the centred rows on their first principal components; the centred rows themselves for None."""
    centred = features.double() - features.double().mean(dim=0)
    if components is None:
        return centred
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    return centred @ vectors[:, -components:]


def gbc(features: Tensor, labels: Tensor, components: int | None = 64, shape: str = "spherical") -> float:
    """GBC of features [n, D] and labels [n] held in memory.

    Raises:
        ValueError: no such shape.
    """
    check_shape(shape)
    points = principal_components(features, components)
    groups = [points[labels == label] for label in labels.unique()]
    means = torch.stack([group.mean(dim=0) for group in groups])
    variances = torch.stack([group.var(dim=0, correction=0) for group in groups]).clamp(min=SMALLEST_VARIANCE)
    if shape != "diagonal":
        variances = variances.mean(dim=1, keepdim=True).expand_as(means)
    log_weight = 1 / means.shape[1] if shape == "released" else 1.0
    overlap = torch.zeros((), dtype=means.dtype, device=means.device)
    for index in range(1, len(groups)):
        distances = bhattacharyya(means[:index], variances[:index], means[index], variances[index], log_weight)
        overlap += torch.exp(-distances).sum()
    return -2 * float(overlap)


def bhattacharyya(means: Tensor, variances: Tensor, mean: Tensor, variance: Tensor, log_weight: float = 1.0) -> Tensor:
    """Distance [C] of Gaussians (means, variances [C, D]) to one Gaussian (mean, variance [D]).

    `log_weight` multiplies the second sum: 1 in the distance of Gaussians.
    """
    middle = (variances + variance) / 2
    apart = ((means - mean).square() / middle).sum(dim=1) / 8
    return apart + log_weight * (middle.log() - variances.log() / 2 - variance.log() / 2).sum(dim=1) / 2


class GBC(ReservoirScore):
    """Gaussian Bhattacharyya coefficient on up to `max_rows` rows; higher (nearer zero) is better.

    Args:
        components: principal components to keep; None keeps the features as they are.
        shape: "spherical", one variance a class, "diagonal", one a component, or "released", spherical with the
            logarithm of the released code.
    """

    paper: ClassVar[str] = "2111.12780"

    def __init__(
        self,
        *,
        components: int | None = 64,
        shape: str = "spherical",
        max_rows: int = 5000,
        shards: int = 10,
    ):
        if components is not None and components < 1:
            raise ValueError(f"`components` should be at least 1 or None, got {components}.")
        check_shape(shape)
        super().__init__(max_rows=max_rows, shards=shards)
        self.components, self.shape = components, shape

    def check(self, features: Tensor, labels: Tensor) -> None:
        super().check(features, labels)
        check_classes(self, labels)

    def value(self, statistics: Statistics) -> tuple[float, dict[str, Any]]:
        features, labels = statistics["features"], statistics["labels"]
        return gbc(features, labels, self.components, self.shape), {"rows_kept": len(labels)}
