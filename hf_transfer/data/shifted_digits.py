"""Shifts of real digits: rotations, as environments or as what is to be told, misleading colours, and classes that a
model lacks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as PILImage

UNKNOWN = "unknown"
"""Name of the class of the digits that a model has not seen."""


def rotated(images: np.ndarray, angles: Sequence[float]) -> np.ndarray:
    """Images [n, H, W] uint8, each turned counter-clockwise by its own angle in degrees, with black corners."""
    turned = [
        np.asarray(PILImage.fromarray(image).rotate(float(angle), PILImage.Resampling.BILINEAR))
        for image, angle in zip(images, angles, strict=True)
    ]
    return np.stack(turned)


def coloured(images: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Images [n, H, W] uint8 as [n, H, W, 3]: green strokes where the colour [n] is 0, red where it is 1."""
    painted = np.zeros((*images.shape, 3), dtype=np.uint8)
    painted[np.arange(len(images)), :, :, 1 - colours] = images
    return painted


def flipped(values: np.ndarray, probabilities: np.ndarray | float, generator: np.random.Generator) -> np.ndarray:
    """Values [n] of 0 and 1, each exchanged for the other with its probability."""
    return values ^ (generator.random(len(values)) < probabilities)


def environments(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """An environment [n] for every row: of each class as many rows as can be in each, drawn by the seed."""
    generator = np.random.default_rng(seed)
    numbers = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        numbers[members] = np.arange(len(members)) % count
    return numbers


def known_classes(labels: np.ndarray, known_digits: int, keep_unknown: bool) -> tuple[np.ndarray, np.ndarray]:
    """Which rows stay, [n] bool, and the labels [n] with all digits from `known_digits` on as one class.

    Raises:
        ValueError: `known_digits` leaves no known or no unknown digit.
    """
    if not 1 <= known_digits <= 9:
        raise ValueError(f"`known_digits` should be from 1 to 9, got {known_digits}.")
    return (labels < known_digits) | keep_unknown, np.minimum(labels, known_digits)
