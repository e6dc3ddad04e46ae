"""RegDA: a second head whose heat maps depart from the model's towards wrong points on the target, and features that
bring them back.

    h = normalised Gaussians around the places that the model's maps tell, without gradient
    wrong_k = (sum of h_j over j != k, cut at 1, less h_k), normalised
    loss = margin E_source KL(h_true | f'(z)) + E_target[ KL(wrong | f'(sg z)) + KL(h | sg f'(z)) ]

f' is the adversarial head on the features z before the model's last layer; sg keeps its argument's parameters from
moving: the first target term moves f' alone, the second the features alone. A point is mistaken for another point of
the same thing far more often than for any other place, so that f' need not look anywhere else.

Paper: Jiang et al., "Regressive Domain Adaptation for Unsupervised Keypoint Detection", CVPR 2021,
https://huggingface.co/papers/2103.06175, margin 4 as there. There the three terms are three steps after one another.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hf_transfer.core.heat_maps import gaussian_maps, heat_map_divergence, likeliest_places, seen_points
from hf_transfer.core.objective import SOURCE, TARGET, BuildContext, Objective, View
from hf_transfer.core.task_loss import REGRESSION
from hf_transfer.domain_adaptation.two_domains import has_both_domains
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.modeling.heat_map_readout import HeatMaps


class MapHead(nn.Sequential):
    """Two convolutions, [B, D, H, W] -> heat maps [B, K, H, W]."""

    def __init__(self, feature_dim: int, hidden_size: int, points: int):
        super().__init__(
            nn.Conv2d(feature_dim, hidden_size, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden_size, points, 1)
        )


def wrong_maps(maps: Tensor) -> Tensor:
    """Of distributions [B, K, H, W] for each point that of the other points, [B, K, H, W], sum 1."""
    peaks = maps / maps.amax(dim=(-2, -1), keepdim=True)
    others = (peaks.sum(dim=1, keepdim=True) - peaks).clamp(max=1.0)
    wrong = (others - peaks).clamp(min=0.0)
    total = wrong.sum(dim=(-2, -1), keepdim=True)
    return torch.where(total > 0, wrong / total.clamp(min=torch.finfo(wrong.dtype).tiny), maps)


class RegDA(Objective):
    """Disparity of two heads in the space of heat maps, for key points.

    Args:
        margin: weight of the source term.
        hidden_size: channels of the adversarial head.
        sigma: of the Gaussians around told places, in places of a map.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is not positive; at `build`, the model gives no heat maps.
    """

    paper = "2103.06175"
    tasks = frozenset({REGRESSION})
    needs = frozenset({"outputs", "labels", "domain"})
    reads_outputs = frozenset({"heatmaps", "features"})

    def __init__(self, margin: float = 4.0, hidden_size: int = 64, sigma: float = 1.5, weight: float = 1.0):
        super().__init__(weight)
        require_positive(margin=margin, hidden_size=hidden_size, sigma=sigma)
        self.margin = margin
        self.hidden_size = hidden_size
        self.sigma = sigma

    def build(self, context: BuildContext) -> None:
        if context.readout is not None and not isinstance(context.readout, HeatMaps):
            raise ValueError(
                f"RegDA needs a model with heat maps of key points, and the readout "
                f"`{type(context.readout).__name__}` gives none: it is for keypoint-detection."
            )
        self.adversarial_head = MapHead(context.feature_dim, self.hidden_size, context.num_labels // 2)

    def forward(self, view: View) -> Tensor:
        maps = view.outputs["heatmaps"]
        if not has_both_domains(view) or view.labels is None:
            return maps.sum() * 0.0
        features = view.outputs["features"].float()
        source, target = view.domain == SOURCE, view.domain == TARGET
        points = view.labels[source].reshape(int(source.sum()), -1, 2)
        seen, size = seen_points(points), maps.shape[-2:]
        losses = heat_map_divergence(self.adversarial_head(features[source]), gaussian_maps(points, size, self.sigma))
        loss = self.margin * (losses * seen).sum() / seen.sum().clamp(min=1)
        told = gaussian_maps(likeliest_places(maps[target].detach())[..., :2], size, self.sigma)
        departs = heat_map_divergence(self.adversarial_head(features[target].detach()), wrong_maps(told))
        fixed = {name: one.detach() for name, one in self.adversarial_head.named_parameters()}
        returns = heat_map_divergence(functional_call(self.adversarial_head, fixed, (features[target],)), told)
        return loss + departs.mean() + returns.mean()
