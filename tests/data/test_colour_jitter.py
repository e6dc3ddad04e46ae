import colorsys

import pytest
import torch

from hf_transfer.data.colour_jitter import OPERATIONS, contrast, grey_of, hue, jitter, saturation


@pytest.fixture
def images():
    return torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def amount(*values):
    return torch.tensor(values).reshape(-1, 1, 1, 1)


def test_hue_turns_as_the_standard_library_does(images):
    turned = hue(images, amount(0.1, -0.3, 0.5))
    for image, got, turn in zip(images, turned, (0.1, -0.3, 0.5)):
        for pixel, found in zip(image.flatten(1).T.tolist(), got.flatten(1).T.tolist()):
            h, s, v = colorsys.rgb_to_hsv(*pixel)
            assert found == pytest.approx(colorsys.hsv_to_rgb((h + turn) % 1, s, v), abs=1e-5)
    torch.testing.assert_close(hue(images, amount(0.0, 0.0, 1.0)), images)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(hue(grey, amount(0.2, 0.2, 0.2)), grey)


def test_factors_of_one_change_nothing_and_of_zero_leave_grey(images):
    for change in OPERATIONS[:3]:
        torch.testing.assert_close(change(images, amount(1.0, 1.0, 1.0)), images)
    assert torch.equal(saturation(images, amount(0.0, 0.0, 0.0)), grey_of(images).expand_as(images))
    flat = contrast(images, amount(0.0, 0.0, 0.0))
    torch.testing.assert_close(flat, grey_of(images).mean(dim=(2, 3), keepdim=True).expand_as(images))


def test_every_image_has_its_own_order_and_amounts(images):
    amounts = torch.tensor([[1.5, 0.5, 0.2, 0.1], [0.5, 1.5, 1.2, -0.1], [1.2, 1.2, 0.8, 0.2]])
    order = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
    for place, image in enumerate(images):
        expected = image.unsqueeze(0)
        for number in order[place].tolist():
            expected = OPERATIONS[number](expected, amounts[place, number].reshape(1, 1, 1, 1)).clamp(0, 1)
        torch.testing.assert_close(jitter(images, amounts, order)[place], expected[0])


def test_one_channel_has_neither_hue_nor_saturation(images):
    single = images[:, :1]
    factors = amount(0.3, 0.3, 0.3)
    assert torch.equal(hue(single, factors), single)
    torch.testing.assert_close(saturation(single, factors), single)


def test_pixels_beyond_0_and_1_are_clipped_to_the_range_of_their_image():
    """As where the normalisation is not the one that is undone."""
    wide = torch.tensor([-2.0, 0.5, 3.0, 1.0]).reshape(1, 1, 2, 2)
    changed = jitter(wide, torch.tensor([[1.5, 1.0, 1.0, 0.0]]), torch.tensor([[0, 1, 2, 3]]))
    assert changed.min() == -2 and changed.max() == 3 and changed[0, 0, 0, 1] == 0.75
