"""Masked image modelling: pre-training on images without labels."""

from __future__ import annotations

from hf_transfer.tasks.image import ImageTask


class MaskedImageModeling(ImageTask):
    """Hidden patches of an image; the model hides them and computes the loss."""

    name = "masked-image-modeling"
    auto_class = "AutoModelForMaskedImageModeling"
    reads_labels = False
