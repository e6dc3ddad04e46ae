"""Two random views of every image for self-supervised pre-training, with the settings of the papers as presets.

A view is a random part of the image at its full size, mirrored by chance, its colours changed by chance, made grey by
chance, blurred by chance and solarised by chance (x' = 1 - x where x >= .5). Both views are random: what is drawn for
a row depends on the seed, the epoch and the row alone (`hf_transfer.data.views`).

    area = a H W, a ~ U(crop, 1);   width / height = r, ln r ~ U(ln 3/4, ln 4/3);   blur sigma ~ U(.1, 2)

Presets and papers: moco_v2 (Chen et al. 2020, https://huggingface.co/papers/2003.04297; SimSiam has the same), moco_v3
(Chen et al. 2021, https://huggingface.co/papers/2104.02057), simclr (Chen et al. 2020,
https://huggingface.co/papers/2002.05709), small (images of 28 to 64 pixels: no blur, SimCLR's jitter at half
strength), mae (He et al. 2022, https://huggingface.co/papers/2111.06377: crop and mirror alone, bilinear here). The
jitter works on pixels in [0, 1], which the normalisation of the image processor is undone for.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transfer.data.colour_jitter import grey_of, jitter
from hf_transfer.data.image_augmentation import images_of, warp
from hf_transfer.functional.keyword_checks import require_non_negative

TRIES = 10
"""How often a part of the image is drawn until one fits inside; then the largest one of an allowed form."""
ASPECTS = (3 / 4, 4 / 3)
SIGMAS = (0.1, 2.0)
WIDEST = 6
"""Pixels to either side that a blur reaches: three times its largest sigma."""
DRAWS = {"crop": 2 * TRIES, "place": 2, "flip": 1, "jitter": 1, "amounts": 4, "order": 4, "grey": 1, "blur": 2}
DRAWS |= {"solarize": 1}
"""How many uniform numbers a view draws for what, whether it needs them or not."""


@dataclass(frozen=True)
class ImageViews:
    """Random views of `pixel_values` [B, C, H, W]; without arguments those of MoCo v2.

    Args:
        crop: smallest part of the area that a view shows, in (0, 1].
        flip: mirror half of the views; not for digits and letters.
        brightness, contrast, saturation: factors are drawn from [1 - s, 1 + s].
        hue: turns are drawn from [-s, s], s in [0, .5].
        jitter: share of the views whose colours change.
        grey: share of the views without colour.
        blur: share of the first and of the second views that are blurred; a number for both.
        solarize: likewise, that are solarised.
        mean, std: of the normalisation of the pixels, a number or one a channel.

    Raises:
        ValueError: a keyword is out of its range; at a call, `pixel_values` are not images.
    """

    takes_batches: ClassVar[bool] = True
    crop: float = 0.2
    flip: bool = True
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    jitter: float = 0.8
    grey: float = 0.2
    blur: float | Sequence[float] = 0.5
    solarize: float | Sequence[float] = 0.0
    mean: float | Sequence[float] = 0.5
    std: float | Sequence[float] = 0.5

    def __post_init__(self):
        require_non_negative(brightness=self.brightness, contrast=self.contrast, saturation=self.saturation)
        if not 0 < self.crop <= 1:
            raise ValueError(f"`crop` should be in (0, 1], got {self.crop}.")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"`hue` should be in [0, 0.5], got {self.hue}.")
        for name in ("jitter", "grey", "blur", "solarize"):
            shares = _pair(getattr(self, name))
            if len(shares) != 2 or not all(0 <= share <= 1 for share in shares):
                raise ValueError(f"`{name}` should be a share in [0, 1], got {getattr(self, name)}.")

    def first_view(self, inputs: Mapping[str, Tensor], generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """The first view of every row, drawn by the row's generator."""
        return self._view(inputs, generators, 0)

    def second_view(self, inputs: Mapping[str, Tensor], generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """The second view of every row, drawn by the row's generator."""
        return self._view(inputs, generators, 1)

    def _view(self, inputs: Mapping[str, Tensor], generators: Sequence[torch.Generator], number: int) -> dict:
        images = images_of(inputs)
        numbers = torch.stack([torch.rand(sum(DRAWS.values()), generator=one) for one in generators])
        drawn = dict(zip(DRAWS, numbers.split(list(DRAWS.values()), dim=1), strict=True))
        images = warp(images, self._crops(drawn, images.shape[-2:]))
        mean, std = (torch.as_tensor(value, dtype=images.dtype).reshape(-1, 1, 1) for value in (self.mean, self.std))
        pixels = self._coloured(images * std + mean, drawn, number)
        return {**inputs, "pixel_values": (pixels - mean) / std}

    def _crops(self, drawn: Mapping[str, Tensor], size: Sequence[int]) -> Tensor:
        """Where each view is read, as matrices [B, 3, 3]."""
        area, aspect = drawn["crop"].unflatten(1, (2, TRIES)).unbind(dim=1)
        area = self.crop + (1 - self.crop) * area
        low, high = (math.log(one) for one in ASPECTS)
        aspect = (low + (high - low) * aspect).exp() * (size[0] / size[1])  # of the shares of the sides
        shares = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=2)  # [B, tries, (width, height)]
        fits = (shares <= 1).all(dim=2)
        first = fits.float().argmax(dim=1)
        wide = size[1] / size[0]
        largest = torch.tensor([min(1.0, ASPECTS[1] / wide), min(1.0, wide / ASPECTS[0])])
        shares = torch.where(fits.any(dim=1, keepdim=True), shares[torch.arange(len(first)), first], largest)
        matrices = torch.diag_embed(F.pad(shares, (0, 1), value=1.0))
        matrices[:, :2, 2] = (2 * drawn["place"] - 1) * (1 - shares)
        if self.flip:
            matrices[:, 0, 0] *= torch.where(drawn["flip"][:, 0] < 0.5, -1.0, 1.0)
        return matrices

    def _coloured(self, images: Tensor, drawn: Mapping[str, Tensor], number: int) -> Tensor:
        """The parts with other colours, [B, C, H, W]."""
        spread = torch.tensor([self.brightness, self.contrast, self.saturation, self.hue])
        amounts = (2 * drawn["amounts"] - 1) * spread + torch.tensor([1.0, 1.0, 1.0, 0.0])
        amounts[:, :3] = amounts[:, :3].clamp(min=0)
        if spread.any():
            images = _where(drawn["jitter"], self.jitter, images, jitter(images, amounts, drawn["order"].argsort(1)))
        if images.shape[1] > 1:
            images = _where(drawn["grey"], self.grey, images, grey_of(images).expand_as(images))
        if share := _pair(self.blur)[number]:
            low, high = SIGMAS
            blurred = gaussian_blur(images, low + (high - low) * drawn["blur"][:, 1])
            images = _where(drawn["blur"][:, :1], share, images, blurred)
        if share := _pair(self.solarize)[number]:
            images = _where(drawn["solarize"], share, images, torch.where(images >= 0.5, 1 - images, images))
        return images


PRESETS: dict[str, dict[str, Any]] = {
    "moco_v2": {},
    "moco_v3": {"saturation": 0.2, "blur": (1.0, 0.1), "solarize": (0.0, 0.2)},
    "simclr": {"crop": 0.08, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
    "small": {"blur": 0.0},
    "mae": {"jitter": 0.0, "grey": 0.0, "blur": 0.0},
}
"""Name -> keywords of ImageViews. MoCo v3 has a crop of .08 for a ViT."""


def image_views(preset: str, processor: Any = None, **changes: Any) -> ImageViews:
    """The views of a preset, with changes.

    Args:
        preset: a key of PRESETS.
        processor: the image processor of the rows, which says how their pixels are normalised.
        changes: keywords of ImageViews.

    Raises:
        ValueError: an unknown preset or keyword, or a value out of its range.
    """
    if preset not in PRESETS:
        raise ValueError(f"`views` should be one of {sorted(PRESETS)}, got {preset!r}.")
    unknown = sorted(set(changes) - set(inspect.signature(ImageViews).parameters))
    if unknown:
        accepted = sorted(inspect.signature(ImageViews).parameters)
        raise ValueError(f"`augmentation` with `views` has no {unknown}, accepted: {accepted}.")
    told = {}
    if getattr(processor, "do_normalize", False):
        told = {"mean": tuple(processor.image_mean), "std": tuple(processor.image_std)}
    return ImageViews(**{**told, **PRESETS[preset], **changes})


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Images [B, C, H, W], each blurred by a Gaussian of its own deviation [B] in pixels; edges are repeated."""
    count, channels = images.shape[:2]
    indices = torch.arange(-WIDEST, WIDEST + 1, dtype=images.dtype)
    kernels = torch.exp(-0.5 * (indices / sigma[:, None].to(images.dtype)).square())
    kernels = (kernels / kernels.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    blurred = F.pad(images, (WIDEST,) * 4, mode="replicate").reshape(1, count * channels, *_padded(images))
    for shape in ((-1, 1, 1, len(indices)), (-1, 1, len(indices), 1)):
        blurred = F.conv2d(blurred, kernels.reshape(shape), groups=count * channels)
    return blurred.reshape(images.shape)


def _padded(images: Tensor) -> tuple[int, int]:
    return images.shape[2] + 2 * WIDEST, images.shape[3] + 2 * WIDEST


def _pair(share: float | Sequence[float]) -> Sequence[float]:
    return share if isinstance(share, Sequence) else (share, share)


def _where(drawn: Tensor, share: float, images: Tensor, changed: Tensor) -> Tensor:
    """The changed images where the number drawn, [B, 1], is below the share."""
    return torch.where((drawn < share).reshape(-1, 1, 1, 1), changed, images)
