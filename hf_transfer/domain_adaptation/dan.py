"""Deep adaptation network: the multi-kernel maximum mean discrepancy of the features.

    loss = MMD^2(F_source, F_target),   k(a, b) = sum_{alpha} exp(-||a - b||^2 / (2 alpha s^2))

s^2 is the batch's mean squared distance, alpha = 1/8 .. 2. The estimate is unbiased: the quadratic form over all
pairs, or the linear-time form over disjoint quadruples. It is around 0, on either side, where the domains are alike.
With `label_shift: correct` source rows are weighted by their class (Yan et al. 2017,
https://huggingface.co/papers/1705.00609).

Paper: Long et al., "Learning Transferable Features with Deep Adaptation Networks", ICML 2015,
https://huggingface.co/papers/1502.02791. Kernels as in its released code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_transfer.core.objective import Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.domain_adaptation.two_domains import has_both_domains
from hf_transfer.functional.kernels import (
    MEAN_DISTANCE_SCALES,
    gaussian_mixture,
    linear_mmd,
    mean_squared_distance,
    pairwise_squared_distances,
    quadratic_mmd,
    quadruple_squared_distances,
)
from hf_transfer.functional.keyword_checks import require_positive


def multi_kernel_mmd(
    source: Tensor,
    target: Tensor,
    scales: Sequence[float] = MEAN_DISTANCE_SCALES,
    linear: bool = False,
    source_weights: Tensor | None = None,
) -> Tensor:
    """Unbiased estimate of the squared multi-kernel MMD, a scalar.

    Args:
        source: [n, D], n >= 2.
        target: [m, D], m >= 2.
        scales: alpha of every kernel, relative to the mean squared distance of all rows.
        linear: use disjoint quadruples in linear time instead of all pairs.
        source_weights: [n] or None for all ones.
    """
    rows = torch.cat([source, target])
    bandwidths = mean_squared_distance(rows) * rows.new_tensor(scales)
    if linear:
        return linear_mmd(gaussian_mixture(quadruple_squared_distances(source, target), bandwidths), source_weights)
    return quadratic_mmd(gaussian_mixture(pairwise_squared_distances(rows), bandwidths), len(source), source_weights)


class DAN(Objective):
    """Multi-kernel MMD between the features of the two domains.

    Args:
        scales: squared kernel widths over the mean squared distance.
        linear: the linear-time estimate, noisier and cheaper.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: no scale, or one that is not positive.
    """

    paper = "1502.02791"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "domain", "global_batch"})
    weighs_source = True
    rows_per_domain = 2
    is_bounded = True

    def __init__(self, scales: Sequence[float] = MEAN_DISTANCE_SCALES, linear: bool = False, weight: float = 1.0):
        super().__init__(weight)
        if not scales:
            raise ValueError("`scales` should hold at least one kernel width, got none.")
        require_positive(**{f"scales[{i}]": scale for i, scale in enumerate(scales)})
        self.scales = tuple(scales)
        self.linear = linear

    def forward(self, view: View) -> Tensor:
        if not has_both_domains(view, at_least=self.rows_per_domain):
            return no_loss(view)
        source = view.source
        return multi_kernel_mmd(source.features, view.target.features, self.scales, self.linear, source.unit_weights)
