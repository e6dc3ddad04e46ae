import pytest
import torch

from hf_transfer.domain_adaptation.translation_networks import (
    Generator,
    ImageBuffer,
    PatchDiscriminator,
    least_squares,
)


@pytest.mark.parametrize("channels, size", [(1, 28), (3, 32), (1, 14), (1, 9)])
def test_images_keep_their_shape_and_range(channels, size):
    torch.manual_seed(0)
    images = torch.rand(2, channels, size, size) * 2 - 1
    translated = Generator(channels, width=4, blocks=1)(images)
    assert translated.shape == images.shape and translated.abs().max() <= 1


@pytest.mark.parametrize("size, halvings", [(14, 1), (28, 2), (32, 3), (256, 3)])
def test_the_discriminator_judges_patches(size, halvings):
    patches = size // 2**halvings
    assert PatchDiscriminator(1, 2, size)(torch.zeros(2, 1, size, size)).shape == (2, 1, patches, patches)


def test_least_squares():
    discrimination = torch.tensor([0.5, -1.0])
    assert least_squares(discrimination, True).item() == pytest.approx((0.25 + 4.0) / 2)
    assert least_squares(discrimination, False).item() == pytest.approx((0.25 + 1.0) / 2)


def test_the_buffer_fills_and_then_exchanges():
    torch.manual_seed(0)
    buffer = ImageBuffer(3, 1, 1)
    first = torch.arange(2.0).reshape(2, 1, 1, 1)
    assert torch.equal(buffer.exchange(first), first) and buffer.filled == 2
    given, shown = [], []
    for start in range(2, 42, 4):
        images = torch.arange(float(start), start + 4).reshape(4, 1, 1, 1)
        before = set(buffer.images[: int(buffer.filled)].flatten().tolist())
        out = buffer.exchange(images).flatten().tolist()
        assert set(out) <= before | set(images.flatten().tolist())
        given, shown = given + images.flatten().tolist(), shown + out
    assert buffer.filled == 3
    old = sum(a != b for a, b in zip(given, shown)) / len(given)
    assert 0.25 < old < 0.75


def test_the_buffer_travels_in_a_checkpoint():
    torch.manual_seed(0)
    buffer, other = ImageBuffer(3, 1, 2), ImageBuffer(3, 1, 2)
    buffer.exchange(torch.rand(2, 1, 2, 2))
    other.load_state_dict(buffer.state_dict())
    assert other.filled == 2 and torch.equal(other.images, buffer.images)
