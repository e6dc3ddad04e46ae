"""Random changes of time series that keep their class: noise, size, speed, and missing steps.

    jitter    x'_t = x_t + jitter * s * noise           (s = the channel's deviation over the real steps of the row)
    scaling   x'_t = x_t * (1 + scaling * noise)        (one factor a channel)
    time warp x'_t = x(tau(t)),   tau' = 1 + warp * noise at `knots` places, tau(start) = start, tau(end) = end
    masking   x'_t = mean of x with probability `masked`

Papers: Um et al., "Data Augmentation of Wearable Sensor Data for Parkinson's Disease Monitoring using Convolutional
Neural Networks", ICMI 2017, https://huggingface.co/papers/1706.00527 (jitter .05, scaling .1, warp .2, 4 knots);
masked steps as Yue et al., "TS2Vec", https://huggingface.co/papers/2106.10466. Here a speed changes linearly between
two knots, and no slower than a tenth of the original, so that time never runs back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transfer.functional.keyword_checks import require_non_negative, require_positive, require_share

SLOWEST = 0.1


@dataclass(frozen=True)
class SeriesAugmentation:
    """Weak (jitter) and strong (all four) augmentation of `past_values` [B, T, C]; padding stays as it is.

    Args:
        jitter: deviation of the noise over that of the channel.
        scaling: deviation of the factors from 1.
        warp: deviation of the speeds from 1.
        knots: at how many places a speed is drawn, at least 2.
        masked: share of the steps that a strong augmentation blanks, in [0, 1).

    Raises:
        ValueError: a keyword is out of its range; at a call, `past_values` are not series.
    """

    jitter: float = 0.05
    scaling: float = 0.1
    warp: float = 0.2
    knots: int = 4
    masked: float = 0.1

    def __post_init__(self):
        require_non_negative(jitter=self.jitter, scaling=self.scaling, warp=self.warp)
        require_share(masked=self.masked)
        require_positive(knots=self.knots - 1)

    def weak(self, inputs: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Noise."""
        series, real = series_of(inputs)
        return {**inputs, "past_values": self._jittered(series, real, generator)}

    def strong(self, inputs: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Another speed, other sizes, noise, and missing steps."""
        series, real = series_of(inputs)
        speeds = 1.0 + self.warp * torch.randn(len(series), self.knots, generator=generator)
        changed = warped(series, real, speeds.clamp_min(SLOWEST))
        factors = 1.0 + self.scaling * torch.randn(len(series), 1, series.shape[2], generator=generator)
        changed = self._jittered(torch.where(real, changed * factors, series), real, generator)
        blank = torch.rand(*series.shape[:2], 1, generator=generator) < self.masked
        mean, _ = moments(series, real)
        return {**inputs, "past_values": torch.where(real & blank, mean, changed)}

    def _jittered(self, series: Tensor, real: Tensor, generator: torch.Generator) -> Tensor:
        _, deviation = moments(series, real)
        noise = torch.randn(series.shape, generator=generator)
        return torch.where(real, series + self.jitter * deviation * noise, series)


def series_of(inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """`past_values` [B, T, C] and which steps are real, [B, T, 1] bool.

    Raises:
        ValueError: `past_values` are not [B, T, C].
    """
    series = inputs["past_values"]
    if series.ndim != 3:
        raise ValueError(f"series to augment should be `past_values` [B, T, C], got {list(series.shape)}.")
    mask = inputs.get("attention_mask")
    real = torch.ones(series.shape[:2]) if mask is None else mask
    return series, real.bool().unsqueeze(-1)


def moments(series: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every channel over the real steps of its row, [B, 1, C] each."""
    count = real.sum(dim=1, keepdim=True).clamp_min(1)
    mean = (series * real).sum(dim=1, keepdim=True) / count
    variance = ((series - mean).square() * real).sum(dim=1, keepdim=True) / count
    return mean, variance.sqrt()


def warped(series: Tensor, real: Tensor, speeds: Tensor) -> Tensor:
    """Series [B, T, C] read along another time, between the first and the last real step of each row.

    Args:
        series: [B, T, C].
        real: [B, T, 1] bool; the real steps stand side by side.
        speeds: [B, knots], positive, evenly spaced over the real steps.
    """
    first = real.int().argmax(dim=1)  # [B, 1]
    last = (first + real.sum(dim=1) - 1).clamp_min(0)
    length = (last - first).clamp_min(1)
    steps = torch.arange(series.shape[1]).expand(series.shape[:2])
    place = ((steps - first) / length).clamp(0, 1)
    speed = between(speeds.unsqueeze(-1), place * (speeds.shape[1] - 1)).squeeze(-1)
    # time passed at a step is the sum of the speeds half way to it
    moving = F.pad((speed[:, 1:] + speed[:, :-1]) / 2, (1, 0)) * ((steps > first) & (steps <= last))
    passed = moving.cumsum(dim=1)
    return between(series, first + passed / passed[:, -1:].clamp_min(1e-12) * (last - first))


def between(values: Tensor, place: Tensor) -> Tensor:
    """Linear interpolation of values [B, T, C] at places [B, L] in [0, T - 1]; [B, L, C]."""
    below = place.floor().long().clamp(0, values.shape[1] - 1)
    above = (below + 1).clamp_max(values.shape[1] - 1)
    share = (place - below).unsqueeze(-1)

    def take(index: Tensor) -> Tensor:
        return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[2]))

    return take(below) * (1 - share) + take(above) * share
