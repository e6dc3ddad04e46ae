"""Features of images: self-supervised pre-training of a backbone without a head, by objectives that compare views."""

from __future__ import annotations

from hf_transfer.tasks.image import ImageTask


class ImageFeatureExtraction(ImageTask):
    """A vector of an image; what it is trained by, the run's `objectives` say."""

    name = "image-feature-extraction"
    auto_class = "AutoModel"
    reads_labels = False
