"""LeNet for small images: two convolutions and one wide layer, as in domain adaptation's experiments on digits.

    conv 20 of 5x5 -> max pool 2 -> ReLU -> conv 50 of 5x5 -> dropout of channels -> max pool 2 -> ReLU -> 500 -> ReLU

and dropout before the linear head. Features are the 500 units.

Paper: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", Proceedings of the IEEE 1998,
https://doi.org/10.1109/5.726791; these widths and dropout .5 as in Long et al., "Conditional Adversarial Domain
Adaptation", NeurIPS 2018, https://huggingface.co/papers/1705.10667.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput

KERNEL = 5


@strict
class LeNetConfig(PreTrainedConfig):
    """Sizes of a LeNet.

    Args:
        image_size: height and width in pixels; (size - 4) / 2 - 4 should be at least 2.
        num_channels: 1 for grey, 3 for colour.
        channels: filters of the two convolutions.
        hidden_size: units of the wide layer, the features.
        dropout: share of channels and of units dropped in training.

    Raises:
        ValueError: no two convolutions, or an image too small for them.
    """

    model_type = "lenet"

    image_size: int = 28
    num_channels: int = 1
    channels: list[int] | tuple[int, ...] = (20, 50)
    hidden_size: int = 500
    dropout: float = 0.5

    def __post_init__(self, **kwargs):
        self.channels = list(self.channels)
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Two convolutions, each followed by a pooling, leave at least one pixel."""
        if len(self.channels) != 2:
            raise ValueError(f"`channels` should be the filters of two convolutions, got {self.channels}.")
        if self.map_size < 1:
            raise ValueError(f"`image_size` should be at least 16 for two convolutions, got {self.image_size}.")

    @property
    def map_size(self) -> int:
        """Height and width of the map after the second pooling."""
        size = self.image_size
        for _ in self.channels:
            size = (size - KERNEL + 1) // 2
        return size


class LeNetPreTrainedModel(PreTrainedModel):
    config_class = LeNetConfig
    base_model_prefix = "lenet"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own distribution, which these layers have without transformers."""
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.reset_parameters()


class LeNetConvolution(nn.Module):
    """[B, C, H, W] -> [B, C', (H - 4) / 2, (W - 4) / 2]."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, KERNEL)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        return F.max_pool2d(self.dropout(self.conv(maps)), 2).relu()


class LeNetModel(LeNetPreTrainedModel):
    """[B, C, H, W] -> features [B, hidden_size]."""

    def __init__(self, config: LeNetConfig):
        super().__init__(config)
        first, second = config.channels
        self.layers = nn.ModuleList(
            [
                LeNetConvolution(config.num_channels, first),
                LeNetConvolution(first, second, config.dropout),
                nn.Linear(second * config.map_size**2, config.hidden_size),
            ]
        )
        self.post_init()

    def forward(self, pixel_values: Tensor, **kwargs) -> BaseModelOutputWithPooling:
        first, second, wide = self.layers
        # on a CPU a step takes two thirds of the time in this layout (`contiguous` leaves grey images as they are)
        maps = second(first(pixel_values.to(memory_format=torch.channels_last)))
        features = wide(maps.flatten(start_dim=1)).relu()
        return BaseModelOutputWithPooling(last_hidden_state=maps, pooler_output=features)


class LeNetForImageClassification(LeNetPreTrainedModel):
    """LeNetModel, dropout and a linear head."""

    def __init__(self, config: LeNetConfig):
        super().__init__(config)
        self.lenet = LeNetModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs) -> ImageClassifierOutput:
        """Logits [B, num_labels], and the cross entropy where there are labels [B]."""
        features = self.lenet(pixel_values).pooler_output
        logits = self.classifier(self.dropout(features))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)
