"""Random changes of pictures together with what is labelled in them: maps of classes, boxes or key points.

    x'(u) = x(A u),   A: a shift by at most `shift` of the side, a zoom by exp(z), |z| <= zoom, mirrored by chance
    strong: then brightness and contrast by random strengths up to `magnitude`

Labels go through the same A: a map is read at the nearest place, boxes and points are moved the other way. A box of
which less than `LEAST_LEFT` of the area is left goes, and so does a point that leaves the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transfer.core.task_loss import IGNORED_LABEL
from hf_transfer.data.image_augmentation import images_of, recolour, warp
from hf_transfer.data.objects import NO_OBJECT
from hf_transfer.functional.keyword_checks import require_share

LEAST_LEFT = 0.25
BOX, POINT = 5, 2
"""Width of a line of a table of boxes, and of one of points."""


@dataclass(frozen=True)
class SceneAugmentation:
    """Weak and strong augmentation of `pixel_values` [B, C, H, W] and `labels`.

    Args:
        shift: largest shift as a share of the side, in [0, 1).
        zoom: largest logarithm of a scale, in [0, 1).
        flip: mirror half of the pictures left to right; not for points that have a left and a right.
        magnitude: largest strength of brightness and contrast of a strong augmentation, in [0, 1).

    Raises:
        ValueError: a keyword is out of its range; at a call, `pixel_values` are not images, or points are mirrored.
    """

    moves_labels: ClassVar[bool] = True

    shift: float = 0.125
    zoom: float = 0.2
    flip: bool = False
    magnitude: float = 0.5

    def __post_init__(self):
        require_share(shift=self.shift, zoom=self.zoom, magnitude=self.magnitude)

    def weak(self, inputs: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Shifted, zoomed and mirrored."""
        images, labels = images_of(inputs), inputs.get("labels")
        if self.flip and labels is not None and labels.is_floating_point() and labels.shape[-1] == POINT:
            raise ValueError("`flip` would make a left key point a right one: leave it out for key points.")
        matrices = self._placement(len(images), generator)
        changed = {**inputs, "pixel_values": warp(images, matrices)}
        return changed if labels is None else {**changed, "labels": moved(labels, matrices)}

    def strong(self, inputs: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """As weak, then recoloured."""
        changed = self.weak(inputs, generator)
        count = len(changed["pixel_values"])
        drawn = (2 * torch.rand(2, count, generator=generator) - 1) * self.magnitude
        strength = {"brightness": drawn[0], "contrast": drawn[1], "sharpness": torch.zeros(count)}
        return {**changed, "pixel_values": recolour(changed["pixel_values"], strength)}

    def _placement(self, count: int, generator: torch.Generator) -> Tensor:
        """Matrices [B, 3, 3] from places of the new picture to places of the old, both in [-1, 1]."""
        drawn = 2 * torch.rand(3, count, generator=generator) - 1
        matrices = torch.eye(3).repeat(count, 1, 1)
        scale = (drawn[0] * self.zoom).exp()
        mirrored = torch.rand(count, generator=generator) < (0.5 if self.flip else 0.0)
        matrices[:, 0, 0], matrices[:, 1, 1] = torch.where(mirrored, -scale, scale), scale
        matrices[:, :2, 2] = 2 * self.shift * drawn[1:].T
        return matrices


def moved(labels: Tensor, matrices: Tensor) -> Tensor:
    """Labels of pictures that were moved by matrices [B, 3, 3].

    Args:
        labels: maps [B, H, W] of whole numbers, boxes [B, M, 5] or points [B, K, 2].
        matrices: without a turn or a shear.

    Raises:
        ValueError: labels of another form.
    """
    if not labels.is_floating_point():
        grid = F.affine_grid(matrices[:, :2], [len(labels), 1, *labels.shape[-2:]], align_corners=False)
        # whole numbers below 2^24 are exact in float32
        maps = labels.unsqueeze(1).float()
        read = F.grid_sample(maps, grid, mode="nearest", padding_mode="border", align_corners=False)
        return read.squeeze(1).to(labels.dtype)
    if labels.shape[-1] == BOX:
        return moved_boxes(labels, matrices)
    if labels.shape[-1] == POINT:
        places = moved_places(labels, matrices)
        inside = ((places >= 0) & (places <= 1) & (labels >= 0)).all(dim=-1, keepdim=True)
        return torch.where(inside, places, float(IGNORED_LABEL))
    raise ValueError(f"labels to move with their pictures should be maps, boxes or points, got {list(labels.shape)}.")


def moved_places(places: Tensor, matrices: Tensor) -> Tensor:
    """Where places [B, N, 2], shares of the sides, of old pictures are in new ones."""
    scale = torch.stack([matrices[:, 0, 0], matrices[:, 1, 1]], dim=1).unsqueeze(1)
    offset = matrices[:, :2, 2].unsqueeze(1)
    return ((2 * places - 1 - offset) / scale + 1) / 2


def moved_boxes(tables: Tensor, matrices: Tensor) -> Tensor:
    """Tables [B, M, 5] of boxes, cut at the sides of the new pictures."""
    middle, half = tables[..., 1:3], tables[..., 3:] / 2
    ends = [moved_places(middle + sign * half, matrices) for sign in (-1, 1)]
    upper, lower = torch.minimum(*ends), torch.maximum(*ends)
    area = (lower - upper).prod(dim=-1)
    upper, lower = upper.clamp(0, 1), lower.clamp(0, 1)
    left = (lower - upper).prod(dim=-1) >= LEAST_LEFT * area
    boxes = torch.cat([tables[..., :1], (upper + lower) / 2, lower - upper], dim=-1)
    gone = torch.zeros_like(tables)
    gone[..., 0] = NO_OBJECT
    is_object = (tables[..., :1] >= 0) & left.unsqueeze(-1)
    is_unknown = (tables == IGNORED_LABEL).all(dim=-1, keepdim=True)
    return torch.where(is_unknown, tables, torch.where(is_object, boxes, gone))
