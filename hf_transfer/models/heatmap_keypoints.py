"""Key points of pictures: a heat map for each point, made by a small head on any backbone of transformers.

    backbone -> [B, D, h, w] -> deconvolutions of stride 2, each with batch norm and ReLU -> F -> 1x1 -> [B, K, H, W]
    loss = mean_k CE(softmax over places of map k, Gaussian around the true place)   over points that are seen

Papers: Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018,
https://huggingface.co/papers/1804.06208: the head (three deconvolutions of 256 channels there) and a Gaussian of two
places. There the loss is the squared error of maps; the cross entropy of places learns faster from few pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from hf_transfer.core.heat_maps import heat_map_loss

TIMES = 2
"""A deconvolution doubles the sides of a map."""


@strict
class HeatmapKeypointsConfig(PreTrainedConfig):
    """Sizes of a head for key points, and the backbone under it.

    Args:
        backbone_config: configuration of any model that `AutoBackbone` knows, or its fields with `model_type`.
        num_channels: 1 for grey, 3 for colour.
        image_size: height and width in pixels, which the image processor resizes to.
        deconvolutions: how many there are; each doubles the sides of the maps.
        hidden_size: their channels, the features.
        sigma: of the Gaussian around a true place, in places of a map.

    `num_labels` is the number of key points, whose names are in `id2label`.

    Raises:
        ValueError: no backbone, or a size that is not positive.
    """

    model_type = "heatmap-keypoints"
    sub_configs = {"backbone_config": AutoConfig}

    backbone_config: dict | PreTrainedConfig | None = None
    num_channels: int = 3
    image_size: int = 64
    deconvolutions: int = 2
    hidden_size: int = 64
    sigma: float = 1.5

    def __post_init__(self, **kwargs):
        if isinstance(self.backbone_config, dict):
            fields = dict(self.backbone_config)
            self.backbone_config = AutoConfig.for_model(fields.pop("model_type", "resnet"), **fields)
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """The head has channels, and its maps a width."""
        if self.deconvolutions < 0 or self.hidden_size < 1 or self.sigma <= 0:
            raise ValueError(
                "`deconvolutions` should be at least 0, `hidden_size` at least 1 and `sigma` positive, got "
                f"{self.deconvolutions}, {self.hidden_size} and {self.sigma}."
            )


@dataclass
class HeatmapKeypointsOutput(ModelOutput):
    """What the model returns.

    Args:
        loss: mean over the points that are seen, where labels are given.
        heatmaps: [B, K, H, W], scores of places.
        features: [B, F, H, W], what the last layer makes them of.
    """

    loss: Tensor | None = None
    heatmaps: Tensor | None = None
    features: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class HeatmapKeypointsForKeypointDetection(PreTrainedModel):
    """A backbone with a head that gives a heat map for each key point."""

    config_class = HeatmapKeypointsConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True

    def __init__(self, config: HeatmapKeypointsConfig):
        super().__init__(config)
        if config.backbone_config is None:
            raise ValueError("`backbone_config` should be the fields of a backbone: {model_type: resnet, ...}.")
        self.backbone = AutoBackbone.from_config(config.backbone_config)
        layers: list[nn.Module] = []
        width = self.backbone.channels[-1]
        for _ in range(config.deconvolutions):
            layers += [nn.ConvTranspose2d(width, config.hidden_size, 4, stride=TIMES, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(config.hidden_size), nn.ReLU()]
            width = config.hidden_size
        self.upsampling = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, config.num_labels, 1)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.02)

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, output_hidden_states: bool = False, **kwargs: Any
    ) -> HeatmapKeypointsOutput:
        """Heat maps of pictures.

        Args:
            pixel_values: [B, C, height, width].
            labels: [B, K, 2], x and y as shares of the picture's sides; negative for a point that is not seen.
            output_hidden_states: return the states of the backbone too.
        """
        outputs = self.backbone(pixel_values, output_hidden_states=output_hidden_states)
        features = self.upsampling(outputs.feature_maps[-1])
        heatmaps = self.head(features)
        loss = None if labels is None else heat_map_loss(heatmaps, labels, self.config.sigma)
        return HeatmapKeypointsOutput(
            loss, heatmaps, features, outputs.hidden_states if output_hidden_states else None
        )
