"""Grey pictures blended onto pieces of photographs: a domain shift of background and colour, with the labels kept.

    out_c = |piece_c - grey|   for each colour c

Paper: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016,
https://huggingface.co/papers/1505.07818, which blends MNIST with photographs in this way (MNIST-M). The photographs
are the two that travel inside scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.datasets import load_sample_images


def on_photographs(images: np.ndarray, seed: int = 0, photographs: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """Every picture on a random piece of a random photograph, [N, H, W] uint8 -> [N, H, W, 3] uint8.

    Args:
        images: [N, H, W] uint8.
        seed: of the choice of the pieces.
        photographs: [height, width, 3] uint8 each; scikit-learn's sample images when left out.

    Raises:
        ValueError: a photograph is smaller than the pictures.
    """
    photographs = load_sample_images().images if photographs is None else photographs
    height, width = images.shape[1:]
    if any(photo.shape[0] < height or photo.shape[1] < width for photo in photographs):
        raise ValueError(f"every photograph should be at least {height} x {width}, as the pictures are.")
    generator = np.random.default_rng(seed)
    blended = np.empty((*images.shape, 3), dtype=np.uint8)
    for index, image in enumerate(images):
        photo = photographs[generator.integers(len(photographs))]
        top = generator.integers(photo.shape[0] - height + 1)
        left = generator.integers(photo.shape[1] - width + 1)
        piece = photo[top : top + height, left : left + width].astype(np.int16)
        blended[index] = np.abs(piece - image[..., None].astype(np.int16))
    return blended
