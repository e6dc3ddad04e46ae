"""Image classification, and regression from images."""

from __future__ import annotations

from hf_transfer.tasks.image import ImageTask


class ImageClassification(ImageTask):
    """One class, several labels or numbers of an image."""

    name = "image-classification"
    auto_class = "AutoModelForImageClassification"
    input_column = "pixel_values"
