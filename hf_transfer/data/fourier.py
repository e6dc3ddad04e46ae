"""Fourier domain adaptation: source pictures with the low frequencies of target pictures.

    x' = F^-1(A, phase x),   A = |F x| outside a square of half width b = floor(beta min(H, W)), |F t| inside

F is the two-dimensional Fourier transform of every channel with the frequency 0 in the middle. The lowest amplitudes,
which hold light and colour, become those of a target picture t drawn at random; the phases, which hold shapes, stay.
Of the target only these few amplitudes are kept.

Paper: Yang and Soatto, "FDA: Fourier Domain Adaptation for Semantic Segmentation", CVPR 2020,
https://huggingface.co/papers/2004.05498, which tries beta from .01 to .09 on pictures of 512 to 1,024 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from hf_transfer.core.objective import SOURCE, TARGET
from hf_transfer.data.checks import column_values
from hf_transfer.data.visits import VISIT_COLUMN, seed_of

PIXELS = "pixel_values"
KEPT = 256
"""At most so many target pictures lend their amplitudes."""


def half_width(height: int, width: int, beta: float) -> int:
    """b: the square has 2 b + 1 frequencies a side."""
    return int(beta * min(height, width))


def low_amplitudes(images: Tensor, beta: float) -> Tensor:
    """Amplitudes of the lowest frequencies of images [B, C, H, W], [B, C, 2b + 1, 2b + 1]."""
    return _window(torch.fft.fftshift(torch.fft.fft2(images.float()), dim=(-2, -1)).abs(), beta)


def _window(spectrum: Tensor, beta: float) -> Tensor:
    """The lowest frequencies of a spectrum [..., H, W] with the frequency 0 in the middle; a view."""
    height, width = spectrum.shape[-2:]
    half = half_width(height, width, beta)
    top, left = height // 2 - half, width // 2 - half
    return spectrum[..., top : top + 2 * half + 1, left : left + 2 * half + 1]


def with_low_amplitudes(images: Tensor, amplitudes: Tensor, beta: float) -> Tensor:
    """Images [B, C, H, W] with other amplitudes [B, C, 2b + 1, 2b + 1] of the lowest frequencies."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(images.float()), dim=(-2, -1))
    window = _window(spectrum, beta)
    window.copy_(torch.polar(amplitudes, window.angle()))
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1))).real.to(images.dtype)


@dataclass(frozen=True)
class TargetLight:
    """What is kept of the target pictures.

    Args:
        amplitudes: of their lowest frequencies, [N, C, 2b + 1, 2b + 1].
        darkest: least value of a pixel in either domain. Pictures are taken above it: where normalised values are
            negative, the sign of a channel's mean would be part of its phase.
    """

    amplitudes: Tensor
    darkest: float

    @classmethod
    def of(cls, rows: Dataset, beta: float, most: int = KEPT) -> TargetLight:
        """Of evenly spaced rows.

        Args:
            rows: with `pixel_values` and `domain`.
            beta: share of the smaller side that b is.
            most: rows of each domain.

        Raises:
            ValueError: the rows hold no pictures, or none of a target.
        """
        if PIXELS not in rows.column_names or "domain" not in rows.column_names:
            raise ValueError(
                f"`fourier_adaptation` needs pictures (`{PIXELS}`) of two domains, which a `target_dataset` makes of "
                f"a run; the training rows have {rows.column_names}."
            )
        domains = column_values(rows, "domain")
        source, target = (pictures_of(rows, np.flatnonzero(domains == one), most) for one in (SOURCE, TARGET))
        if not target:
            raise ValueError("`fourier_adaptation` needs target rows (`domain` 1), and there are none.")
        darkest = min(float(one.min()) for one in (*source, *target))
        return cls(torch.cat([low_amplitudes(one.unsqueeze(0) - darkest, beta) for one in target]), darkest)


def pictures_of(rows: Dataset, places: np.ndarray, most: int) -> list[Tensor]:
    """At most so many evenly spaced pictures [C, H, W] of these rows."""
    chosen = places[np.linspace(0, len(places) - 1, min(most, len(places))).astype(int)]
    return [torch.as_tensor(rows[int(place)][PIXELS]) for place in chosen]


@dataclass(frozen=True)
class FourierCollator:
    """Gives the source pictures of a batch the low frequencies of target pictures.

    Which one a row gets depends on the seed, the row and the epoch alone.

    Args:
        collator: makes a batch of rows, with `pixel_values` and `domain`.
        light: of the target.
        beta: with which it was made.
        seed: of the draws.
    """

    collator: Callable[[Sequence[Any]], Mapping[str, Any]]
    light: TargetLight
    beta: float
    seed: int = 0
    reads_visits: ClassVar[bool] = True

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        seeds = [self._seed(row) for row in rows]
        if not getattr(self.collator, "reads_visits", False):
            rows = [{name: value for name, value in row.items() if name != VISIT_COLUMN} for row in rows]
        batch = dict(self.collator(rows))
        pixels = batch[PIXELS].clone()
        for place in (batch["domain"] == SOURCE).nonzero()[:, 0].tolist():
            generator = torch.Generator().manual_seed(seeds[place])
            drawn = int(torch.randint(len(self.light.amplitudes), (), generator=generator))
            above = pixels[place : place + 1] - self.light.darkest
            changed = with_low_amplitudes(above, self.light.amplitudes[drawn : drawn + 1], self.beta)
            pixels[place] = changed[0] + self.light.darkest
        return {**batch, PIXELS: pixels}

    def _seed(self, row: Mapping[str, Any]) -> int:
        """Of the visit, and where there is none of the picture."""
        visit = row.get(VISIT_COLUMN)
        if visit is not None:
            return seed_of(f"fourier {visit.seed(self.seed)}".encode())
        return seed_of(f"fourier {self.seed}".encode() + torch.as_tensor(row[PIXELS]).contiguous().numpy().tobytes())
