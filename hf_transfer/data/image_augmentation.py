"""Random changes of images that keep their class, on tensors, whatever their normalisation.

    weak:   x'(u) = x(u + t),   |t| <= shift, mirrored with probability 1/2 where `flip` is true, and with probability
            1/2 turned into its negative min x + max x - x where `negative` is true
    strong: `operations` random ones of OPERATIONS at random strengths up to `magnitude`, and a grey square

Papers: Cubuk et al., "RandAugment", 2020, https://huggingface.co/papers/1909.13719; DeVries and Taylor, "Cutout",
2017, https://huggingface.co/papers/1708.04552; weak and strong as FixMatch uses them,
https://huggingface.co/papers/2001.07685 (shift 1/8). RandAugment's operations on 8-bit values (posterise, solarise,
equalise) have no meaning for normalised pixels and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transfer.functional.keyword_checks import require_non_negative, require_share

OPERATIONS = ("rotate", "shear_x", "shear_y", "zoom", "brightness", "contrast", "sharpness", "keep")
LARGEST = {"rotate": math.radians(30), "shear_x": 0.3, "shear_y": 0.3, "zoom": 0.3}
"""What a strength of 1 is: radians, shears, and the logarithm of a scale. Of the others it is 100 %."""


@dataclass(frozen=True)
class ImageAugmentation:
    """Weak and strong augmentation of `pixel_values` [B, C, H, W].

    Args:
        shift: largest shift as a share of the side, in [0, 1).
        flip: mirror half of the images left to right; not for digits and letters.
        negative: turn half of the images into their negatives, where dark on light means what light on dark does.
        operations: how many operations a strong augmentation draws for each image.
        magnitude: largest strength of an operation, in [0, 1).
        cutout: side of the square that a strong augmentation blanks, as a share of the image's, in [0, 1).

    Raises:
        ValueError: a keyword is out of its range; at a call, `pixel_values` are not images.
    """

    shift: float = 0.125
    flip: bool = False
    negative: bool = False
    operations: int = 2
    magnitude: float = 0.7
    cutout: float = 0.25

    def __post_init__(self):
        require_share(shift=self.shift, magnitude=self.magnitude, cutout=self.cutout)
        require_non_negative(operations=self.operations)

    def weak(self, inputs: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Shifted by whole pixels; mirrored and turned into negatives if asked for."""
        images = self._polarity(images_of(inputs), generator)
        return {**inputs, "pixel_values": warp(images, self._placement(images, generator))}

    def strong(self, inputs: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Weakly augmented, then changed by random operations, then cut out."""
        images = self._polarity(images_of(inputs), generator)
        placement = self._placement(images, generator)
        strength = self._strengths(len(images), generator)
        images = recolour(warp(images, placement @ shape_change(strength)), strength)
        return {**inputs, "pixel_values": cut_out(images, self.cutout, generator)}

    def _polarity(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The images, half of them as negatives if asked for."""
        if not self.negative:
            return images
        chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
        return torch.where(chosen, negative(images), images)

    def _placement(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Random shifts and mirrorings as matrices [B, 3, 3]."""
        count, _, height, width = images.shape
        matrices = torch.eye(3).repeat(count, 1, 1)
        for row, side in ((0, width), (1, height)):
            most = int(self.shift * side)
            pixels = torch.randint(-most, most + 1, (count,), generator=generator)
            matrices[:, row, 2] = pixels * (2.0 / side)
        if self.flip:
            matrices[torch.rand(count, generator=generator) < 0.5, 0, 0] = -1.0
        return matrices

    def _strengths(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Each operation's summed strength [B]; 0 where it was not drawn."""
        sums = torch.zeros(len(OPERATIONS), count)
        for _ in range(self.operations):
            drawn = torch.randint(len(OPERATIONS), (1, count), generator=generator)
            sums.scatter_add_(0, drawn, (2 * torch.rand(1, count, generator=generator) - 1) * self.magnitude)
        return dict(zip(OPERATIONS, sums, strict=True))


def images_of(inputs: Mapping[str, Tensor]) -> Tensor:
    """`pixel_values`.

    Raises:
        ValueError: they are not [B, C, H, W].
    """
    images = inputs["pixel_values"]
    if images.ndim != 4:
        raise ValueError(f"images to augment should be `pixel_values` [B, C, H, W], got {list(images.shape)}.")
    return images


def negative(images: Tensor) -> Tensor:
    """Light for dark within each image's own range, whatever its normalisation; [B, C, H, W] as the images."""
    pixels = images.flatten(1)
    ends = pixels.amin(dim=1) + pixels.amax(dim=1)
    return ends.reshape(-1, 1, 1, 1) - images


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Images [B, C, H, W] read at places moved by affine matrices [B, 3, 3]; edges are repeated outwards."""
    grid = F.affine_grid(matrices[:, :2].to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def shape_change(strength: Mapping[str, Tensor]) -> Tensor:
    """Rotation times shears times zoom as matrices [B, 3, 3]."""
    angle, shear_x, shear_y, zoom = (strength[name] * most for name, most in LARGEST.items())
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    scale = zoom.exp()

    def matrix(*entries: Tensor) -> Tensor:
        a, b, c, d = entries
        return torch.stack([a, b, zero, c, d, zero, zero, zero, one], dim=1).reshape(-1, 3, 3)

    rotation = matrix(angle.cos(), -angle.sin(), angle.sin(), angle.cos())
    return rotation @ matrix(one, shear_x, shear_y, one) @ matrix(scale, zero, zero, scale)


def recolour(images: Tensor, strength: Mapping[str, Tensor]) -> Tensor:
    """Brightness in units of an image's deviation, contrast about its mean, sharpness against its 3x3 blur."""
    bright, contrast, sharp = (
        strength[name].to(images.dtype).reshape(-1, 1, 1, 1) for name in ("brightness", "contrast", "sharpness")
    )
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    images = images + sharp * (images - blurred)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    deviation = images.std(dim=(1, 2, 3), keepdim=True, correction=0)
    return mean + (1.0 + contrast) * (images - mean) + bright * deviation


def cut_out(images: Tensor, side: float, generator: torch.Generator) -> Tensor:
    """Images [B, C, H, W] with one square, its centre anywhere, at each channel's mean."""
    count, _, height, width = images.shape
    inside = torch.ones(count, 1, 1, 1, dtype=torch.bool)
    for size, shape in ((height, (1, 1, -1, 1)), (width, (1, 1, 1, -1))):
        span = round(side * size)
        first = torch.randint(size, (count, 1, 1, 1), generator=generator) - span // 2
        index = torch.arange(size).reshape(shape)
        inside = inside & (index >= first) & (index < first + span)
    return torch.where(inside, images.mean(dim=(2, 3), keepdim=True), images)
