import numpy as np
import pytest
import torch

from hf_transfer.data.series_augmentation import SeriesAugmentation, moments, warped


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch():
    """Three sines of two channels, of 30, 20 and 1 real steps."""
    steps = torch.arange(30.0)
    series = torch.stack([(steps * 0.3).sin(), 5 + (steps * 0.2).cos()], dim=1).repeat(3, 1, 1)
    mask = (steps < torch.tensor([[30], [20], [1]])).long()
    return {"past_values": series * mask.unsqueeze(-1), "attention_mask": mask}


@pytest.mark.parametrize("strength", ["weak", "strong"])
def test_padding_stays_and_the_generator_decides(batch, strength):
    change = getattr(SeriesAugmentation(), strength)
    changed = change(batch, generator(1))
    assert torch.equal(changed["attention_mask"], batch["attention_mask"])
    padding = batch["attention_mask"] == 0
    assert (changed["past_values"][padding] == 0).all() and changed["past_values"].isfinite().all()
    assert not torch.equal(changed["past_values"][0], batch["past_values"][0])
    assert torch.equal(changed["past_values"], change(batch, generator(1))["past_values"])
    assert not torch.equal(changed["past_values"], change(batch, generator(2))["past_values"])


def test_jitter_is_relative_to_the_channel(batch):
    many = {"past_values": batch["past_values"][:1].repeat(500, 1, 1)}
    noise = SeriesAugmentation(jitter=0.1).weak(many, generator())["past_values"] - many["past_values"]
    expected = 0.1 * many["past_values"][0].std(dim=0, correction=0)
    torch.testing.assert_close(noise.std(dim=(0, 1)), expected, rtol=0.05, atol=0)


def test_scaling_gives_every_channel_one_factor(batch):
    only = SeriesAugmentation(jitter=0, warp=0, masked=0, scaling=0.5)
    factor = only.strong(batch, generator())["past_values"][0] / batch["past_values"][0]
    torch.testing.assert_close(factor[1:], factor[1:2].expand(29, 2))
    assert (factor[1] != 1).all()


def test_masked_steps_are_at_the_mean_of_the_real_steps(batch):
    only = SeriesAugmentation(jitter=0, warp=0, scaling=0, masked=0.5)
    changed = only.strong(batch, generator())["past_values"]
    row, mean = batch["past_values"][1][:20], batch["past_values"][1][:20].mean(dim=0)
    blank = torch.isclose(changed[1][:20], mean).all(dim=1)
    assert 4 < blank.sum() < 16
    torch.testing.assert_close(changed[1][:20][~blank], row[~blank])


def test_a_warp_against_the_formula(batch):
    series, mask = batch["past_values"].double(), batch["attention_mask"].bool()
    speeds = torch.tensor([[1.0, 3.0, 0.5], [2.0, 0.2, 1.0], [1.0, 2.0, 3.0]], dtype=torch.float64)
    changed = warped(series, mask.unsqueeze(-1), speeds)
    for row, length in ((0, 30), (1, 20)):
        speed = np.interp(np.linspace(0, 2, length), [0, 1, 2], speeds[row])
        passed = np.concatenate([[0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
        times = passed / passed[-1] * (length - 1)
        for channel in (0, 1):
            expected = np.interp(times, np.arange(length), series[row, :length, channel])
            np.testing.assert_allclose(changed[row, :length, channel], expected, atol=1e-6)
    assert torch.equal(changed[2, 0], series[2, 0])
    even = warped(series, mask.unsqueeze(-1), torch.full((3, 4), 0.7, dtype=torch.float64))
    torch.testing.assert_close(even[mask], series[mask])


def test_real_steps_may_stand_at_the_end(batch):
    flipped = {name: value.flip(1) for name, value in batch.items()}
    changed = SeriesAugmentation().strong(flipped, generator())["past_values"]
    assert (changed[flipped["attention_mask"] == 0] == 0).all()
    mean, deviation = moments(flipped["past_values"], flipped["attention_mask"].bool().unsqueeze(-1))
    torch.testing.assert_close(mean[1, 0], flipped["past_values"][1, 10:].mean(dim=0))
    torch.testing.assert_close(deviation[1, 0], flipped["past_values"][1, 10:].std(dim=0, correction=0))


@pytest.mark.parametrize("keywords", [{"jitter": -1}, {"scaling": -1}, {"warp": -1}, {"knots": 1}, {"masked": 1}])
def test_an_invalid_keyword_raises(keywords):
    with pytest.raises(ValueError, match=next(iter(keywords))):
        SeriesAugmentation(**keywords)


def test_what_is_no_series_is_refused():
    with pytest.raises(ValueError, match=r"\[B, T, C\], got \[2, 3\]"):
        SeriesAugmentation().weak({"past_values": torch.zeros(2, 3)}, generator())
