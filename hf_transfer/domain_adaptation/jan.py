"""Joint adaptation network: the maximum mean discrepancy of features and predictions jointly.

    loss = MMD^2 under k((f, p), (f', p')) = k_F(f, f') * k_P(p, p'),   p = softmax(logits)

k_F is the multi-kernel of DAN (alpha = 1/8 .. 2 times the mean squared distance), k_P one Gaussian of width
`prediction_width`. A product of kernels compares the joint distributions, not only the marginals. With `label_shift:
correct` source rows are weighted by their class (IWJAN, https://huggingface.co/papers/2003.04475).

Paper: Long et al., "Deep Transfer Learning with Joint Adaptation Networks", ICML 2017,
https://huggingface.co/papers/1605.06636. Width .92 as in its released code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hf_transfer.core.objective import Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
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


def joint_mmd(
    source: tuple[Tensor, Tensor],
    target: tuple[Tensor, Tensor],
    scales: Sequence[float] = MEAN_DISTANCE_SCALES,
    prediction_width: float = 0.92,
    linear: bool = False,
    source_weights: Tensor | None = None,
) -> Tensor:
    """Unbiased estimate of the squared MMD of (features, predictions), a scalar.

    Args:
        source: features [n, D] and predictions [n, C], n >= 2.
        target: features [m, D] and predictions [m, C], m >= 2.
        scales: alpha of every feature kernel.
        prediction_width: sigma of the prediction kernel.
        linear: use disjoint quadruples in linear time instead of all pairs.
        source_weights: [n] or None for all ones.
    """
    feature_bandwidths = mean_squared_distance(torch.cat([source[0], target[0]])) * source[0].new_tensor(scales)

    def joint_kernel(distances: Callable[[int], Tensor]) -> Tensor:
        return gaussian_mixture(distances(0), feature_bandwidths) * gaussian_mixture(
            distances(1), [prediction_width**2]
        )

    if linear:
        quadruples = joint_kernel(lambda part: quadruple_squared_distances(source[part], target[part]))
        return linear_mmd(quadruples, source_weights)
    kernel = joint_kernel(lambda part: pairwise_squared_distances(torch.cat([source[part], target[part]])))
    return quadratic_mmd(kernel, len(source[0]), source_weights)


class JAN(Objective):
    """Joint MMD between features and predictions of the two domains.

    Args:
        scales: squared widths of the feature kernels over the mean squared distance.
        prediction_width: width of the Gaussian kernel on the predictions.
        linear: the linear-time estimate, noisier and cheaper.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: no scale, or a width that is not positive.
    """

    paper = "1605.06636"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"features", "logits", "domain", "global_batch"})
    weighs_source = True
    rows_per_domain = 2
    is_bounded = True

    def __init__(
        self,
        scales: Sequence[float] = MEAN_DISTANCE_SCALES,
        prediction_width: float = 0.92,
        linear: bool = False,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        if not scales:
            raise ValueError("`scales` should hold at least one kernel width, got none.")
        require_positive(**{f"scales[{i}]": scale for i, scale in enumerate(scales)})
        require_positive(prediction_width=prediction_width)
        self.scales = tuple(scales)
        self.prediction_width = prediction_width
        self.linear = linear

    def forward(self, view: View) -> Tensor:
        if not has_both_domains(view, at_least=self.rows_per_domain):
            return no_loss(view)
        source, target = ((domain.features, domain.logits.softmax(dim=1)) for domain in (view.source, view.target))
        return joint_mmd(source, target, self.scales, self.prediction_width, self.linear, view.source.unit_weights)
