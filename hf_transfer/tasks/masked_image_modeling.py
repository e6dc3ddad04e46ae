"""Masked image modelling: pre-training on images without labels."""

from __future__ import annotations

from typing import Any

from hf_transfer.modeling.vit_mae import register_vit_mae
from hf_transfer.tasks.image import ImageTask


class MaskedImageModeling(ImageTask):
    """Hidden patches of an image, whose loss the model computes; the trainer draws which (`data.masked_patches`)."""

    name = "masked-image-modeling"
    auto_class = "AutoModelForMaskedImageModeling"
    reads_labels = False

    def model_class(self) -> Any:
        register_vit_mae()
        return super().model_class()
