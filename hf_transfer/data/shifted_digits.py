"""Shifts of real digits: rotations, as environments or as what is to be told, misleading colours, classes that a
model lacks, and classes of other shares.
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


def of_shares(labels: np.ndarray, low_over_high: float, seed: int = 0) -> np.ndarray:
    """Which rows stay, as sorted indices, so that the digits below five are so many times as frequent as the others.

    Args:
        labels: [n] of digits.
        low_over_high: how many times; below 1 they are the rarer ones.
        seed: of which rows of the rarer ones are left out.

    Raises:
        ValueError: `low_over_high` is not positive, or leaves a digit without rows.
    """
    if not low_over_high > 0:
        raise ValueError(f"`low_over_high` should be positive, got {low_over_high}.")
    generator, kept = np.random.default_rng(seed), []
    for digit in np.unique(labels):
        share = min(1.0, low_over_high) if digit < 5 else min(1.0, 1 / low_over_high)
        rows = generator.permutation(np.flatnonzero(labels == digit))
        kept.append(rows[: round(share * len(rows))])
        if not len(kept[-1]):
            raise ValueError(f"`low_over_high` = {low_over_high} leaves no row of the digit {digit}.")
    return np.sort(np.concatenate(kept))
