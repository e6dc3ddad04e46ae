"""Low frequencies of the target in source pictures: against numpy's transform, and through a training."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import default_data_collator

from hf_transfer.data.fourier import FourierCollator, TargetLight, low_amplitudes, with_low_amplitudes
from hf_transfer.data.visits import VISIT_COLUMN, Visit


def naive(source: np.ndarray, target: np.ndarray, beta: float) -> np.ndarray:
    """One channel [H, W] with the low amplitudes of another."""
    height, width = source.shape
    half = int(np.floor(beta * min(height, width)))
    mine, theirs = np.fft.fft2(source), np.fft.fft2(target)
    for row in range(-half, half + 1):
        for column in range(-half, half + 1):
            mine[row, column] = np.abs(theirs[row, column]) * np.exp(1j * np.angle(mine[row, column]))
    return np.fft.ifft2(mine).real


@pytest.mark.parametrize("shape", [(8, 8), (9, 12)])
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.3])
def test_it_is_the_formula(shape, beta):
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(2, 1, 3, *shape, generator=generator)
    mixed = with_low_amplitudes(source, low_amplitudes(target, beta), beta)
    for channel in range(3):
        expected = naive(source[0, channel].numpy(), target[0, channel].numpy(), beta)
        assert np.allclose(mixed[0, channel].numpy(), expected, atol=1e-5)


def test_own_amplitudes_change_nothing_and_the_lowest_is_the_mean():
    image, other = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8) + 1
    assert torch.allclose(with_low_amplitudes(image, low_amplitudes(image, 0.2), 0.2), image, atol=1e-5)
    mixed = with_low_amplitudes(image, low_amplitudes(other, 0.0), 0.0)
    assert torch.allclose(mixed.mean(dim=(2, 3)), other.mean(dim=(2, 3)), atol=1e-5)


def rows(count=8) -> Dataset:
    pixels = np.random.default_rng(0).normal(size=(count, 3, 8, 8)).astype("float32")
    pixels[1::2] += 5  # the target is brighter
    data = {"pixel_values": pixels.tolist(), "domain": [0, 1] * (count // 2), "labels": [0] * count}
    return Dataset.from_dict(data).with_format("torch")


def test_source_rows_alone_are_changed_by_draws_of_their_own():
    data = rows()
    collator = FourierCollator(default_data_collator, TargetLight.of(data, 0.1), 0.1, seed=3)
    batch = collator([data[place] for place in range(8)])
    plain = torch.stack([data[place]["pixel_values"] for place in range(8)])
    assert torch.equal(batch["pixel_values"][1::2], plain[1::2])
    assert (batch["pixel_values"][::2].mean(dim=(1, 2, 3)) > 3).all()
    again = collator([data[2], data[1]])
    assert torch.equal(again["pixel_values"][0], batch["pixel_values"][2])  # whatever else is in the batch
    visits = [{**data[0], VISIT_COLUMN: Visit(0, epoch, 0)} for epoch in range(6)]
    drawn = collator(visits)["pixel_values"]
    assert any(not torch.equal(drawn[0], one) for one in drawn[1:])  # another one in another epoch


def test_what_it_needs_is_said():
    with pytest.raises(ValueError, match="needs pictures .* of two domains"):
        TargetLight.of(rows().remove_columns("domain"), 0.1)
    only = rows().select([0, 2])
    with pytest.raises(ValueError, match="needs target rows"):
        TargetLight.of(only, 0.1)
