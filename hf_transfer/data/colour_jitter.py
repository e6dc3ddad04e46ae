"""Random changes of colour on batches of pixels in [0, 1], each image by its own amount.

    brightness  x' = f x
    contrast    x' = f x + (1 - f) mean(grey(x))
    saturation  x' = f x + (1 - f) grey(x)
    hue         every pixel's hue turned by a share of the circle
    grey(x) = .299 R + .587 G + .114 B

What leaves the range of an image is clipped to it. Images of one channel have neither hue nor saturation.
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue, as ITU-R 601 has them."""


def grey_of(images: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, 1, H, W]; the mean of the channels where they are not three."""
    if images.shape[1] != len(LUMA):
        return images.mean(dim=1, keepdim=True)
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device).reshape(1, -1, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """[B, C, H, W], as the images; factor [B, 1, 1, 1]."""
    return images * factor


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """[B, C, H, W], as the images; factor [B, 1, 1, 1]."""
    return factor * images + (1 - factor) * grey_of(images).mean(dim=(2, 3), keepdim=True)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """[B, C, H, W], as the images; factor [B, 1, 1, 1]."""
    return factor * images + (1 - factor) * grey_of(images)


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """[B, C, H, W], as the images; turn [B, 1, 1, 1] in [-.5, .5] of the circle. Value and saturation stay."""
    if images.shape[1] != len(LUMA):
        return images
    value, low = images.amax(dim=1), images.amin(dim=1)
    spread = value - low
    red, green, blue = images.unbind(dim=1)
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    angle = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    angle = angle + 6 * turn.squeeze(1)
    # the channel n of a colour of angle a in sixths: value - spread * clip(min(k, 4 - k), 0, 1), k = (n + a) mod 6
    sixths = [(n + angle) % 6 for n in (5, 3, 1)]
    return torch.stack([value - spread * torch.minimum(k, 4 - k).clamp(0, 1) for k in sixths], dim=1)


OPERATIONS = (brightness, contrast, saturation, hue)


def jitter(images: Tensor, amounts: Tensor, order: Tensor) -> Tensor:
    """The four operations on every image, in the image's own order.

    Args:
        images: [B, C, H, W], usually in [0, 1].
        amounts: [B, 4], of OPERATIONS: three factors and the turn of the hue.
        order: [B, 4], numbers in OPERATIONS.
    """
    low = images.amin(dim=(1, 2, 3), keepdim=True).clamp(max=0)
    high = images.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1)
    for turn in order.unbind(dim=1):
        changed = images.clone()
        for number, operation in enumerate(OPERATIONS):
            rows = turn == number
            if rows.any():
                changed[rows] = operation(images[rows], amounts[rows, number].reshape(-1, 1, 1, 1))
        images = torch.minimum(torch.maximum(changed, low), high)
    return images
