"""What objectives see of a model of key points: pictures, with the places that its heat maps tell.

features [B, D] are the mean over places of what the last layer makes the maps of; logits [B, 2 K] the mean place of
each map, which has a gradient; labels [B, 2 K] the true places, `IGNORED_LABEL` for a point that is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_transfer.core.heat_maps import expected_places, heat_map_loss, likeliest_places
from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.core.readout import Readout, Units
from hf_transfer.core.supervision import TaskLoss
from hf_transfer.core.task_loss import REGRESSION
from hf_transfer.modeling.anatomy import HeadInput, base_layer, linear_heads, width_of

KEYPOINT_HEADS = ("ForKeypointDetection", "ForPoseEstimation")
SIGMA = 2.0
"""Of a Gaussian target in places of a map, where the model's configuration says none (Xiao et al., ECCV 2018)."""


class FromHeatMaps(TaskLoss):
    """The loss of the points that are seen, from the heat maps; ViTPose of transformers has none of its own."""

    def __call__(self, view: Any, outputs: Mapping[str, Any], config: Any) -> Tensor | None:
        if view.labels is None:
            return None
        maps = outputs["heatmaps"]
        points = view.labels.reshape(len(maps), -1, 2)
        return heat_map_loss(maps, points, getattr(config, "sigma", None) or SIGMA)


class HeatMaps(Readout):
    """Units are the pictures of a model with a heat map for each key point."""

    units_are_rows = False
    ignored_part = IGNORED_LABEL
    problem_type = REGRESSION
    own_task_loss = FromHeatMaps

    def find(self, model: nn.Module) -> None:
        width, points = width_of(base_layer(linear_heads(model)[-1]))
        self.feature_dim, self.num_outputs = width, 2 * points
        self.head = HeadInput(model)

    def __enter__(self) -> HeatMaps:
        self.head.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.head.__exit__(*exception)

    def read(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Units:
        features, maps = self.head.take_all()
        labels = batch.get("labels")
        row = torch.arange(len(maps), device=maps.device)
        known = None if labels is None else labels.flatten(1)
        return Units(features.float().mean(dim=(2, 3)), expected_places(maps).flatten(1), known, row)

    def told(self, outputs: Mapping[str, Any]) -> Tensor:
        """x, y and probability of the best place of each map, [B, K, 3]."""
        return likeliest_places(outputs["heatmaps"])
