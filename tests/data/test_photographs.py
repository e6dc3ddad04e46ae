import numpy as np
import pytest

from hf_transfer.data.photographs import on_photographs


def test_each_colour_is_the_distance_to_a_piece_of_the_photograph():
    photograph = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    images = np.random.default_rng(1).integers(0, 256, (5, 4, 4), dtype=np.uint8)
    blended = on_photographs(images, photographs=[photograph])
    pieces = [photograph[top : top + 4, left : left + 4].astype(int) for top in range(6) for left in range(5)]
    for image, result in zip(images.astype(int), blended):
        assert any(np.array_equal(np.abs(piece - image[..., None]), result) for piece in pieces)


def test_the_seed_decides_and_black_shows_the_photograph():
    black = np.zeros((3, 28, 28), dtype=np.uint8)
    first = on_photographs(black, seed=3)
    assert first.shape == (3, 28, 28, 3) and first.std() > 0
    assert np.array_equal(first, on_photographs(black, seed=3))
    assert not np.array_equal(first, on_photographs(black, seed=4))


def test_a_photograph_that_is_too_small():
    with pytest.raises(ValueError, match="at least 4 x 4"):
        on_photographs(np.zeros((1, 4, 4), np.uint8), photographs=[np.zeros((3, 9, 3), np.uint8)])
