"""Image classification, and regression from images."""

from __future__ import annotations

from typing import Any

from hf_transfer.modeling.vit_mae import register_vit_mae
from hf_transfer.tasks.image import ImageTask


class ImageClassification(ImageTask):
    """One class, several labels or numbers of an image."""

    name = "image-classification"
    auto_class = "AutoModelForImageClassification"
    input_column = "pixel_values"

    def model_class(self) -> Any:
        register_vit_mae()
        return super().model_class()
