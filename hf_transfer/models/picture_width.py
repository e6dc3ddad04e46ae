"""What an image model makes of a picture, found by a pass without weights.

The configurations do not tell: an EfficientNet has `hidden_dim`, a MobileNet no width at all, and the last of the
`hidden_sizes` of a MobileViT is not that of its last state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

USUAL_SIZE = (224, 224)


def outputs_of_a_picture(
    make: Callable[[PreTrainedConfig], PreTrainedModel], config: PreTrainedConfig
) -> Mapping[str, Any]:
    """Outputs for one picture, as tensors on the meta device, which have shapes alone; empty if it reads no pictures.

    Args:
        make: a model from its configuration, in float32.
        config: of the model.
    """
    size = getattr(config, "image_size", None) or USUAL_SIZE
    height, width = (size, size) if isinstance(size, int) else size
    try:
        with torch.device("meta"), torch.no_grad():
            return make(config).eval()(pixel_values=torch.zeros(1, config.num_channels, height, width))
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return {}
