import math
from itertools import pairwise

import pytest

from hf_transfer.task_adaptation.ulmfit import ULMFiT


def test_the_slanted_triangle_against_the_formula():
    schedule, steps = ULMFiT(cut_fraction=0.1, ratio=32), 205
    cut = math.floor(steps * 0.1)
    for t in range(steps):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / (cut / steps) - 1))
        assert schedule.rate_over_time(t, steps) == pytest.approx((1 + p * 31) / 32)
    assert schedule.rate_over_time(cut, steps) == 1.0
    assert schedule.rate_over_time(0, steps) == 1 / 32
    assert schedule.rate_over_time(steps, steps) == pytest.approx(1 / 32)


def test_each_layer_learns_more_slowly_than_the_one_above():
    rates = [ULMFiT().rate(place) for place in range(4)]
    assert rates[0] == 1.0
    assert [high / low for high, low in pairwise(rates)] == pytest.approx([2.6] * 3)


def test_layers_thaw_from_the_top_down():
    schedule = ULMFiT(unfreeze_until=0.5)
    frozen = [[place for place in range(1, 5) if schedule.is_frozen(place, 4, step / 16)] for step in range(16)]
    assert frozen[:2] == [[1, 2, 3, 4]] * 2
    assert frozen[2:4] == [[2, 3, 4]] * 2 and frozen[4:6] == [[3, 4]] * 2 and frozen[6:8] == [[4]] * 2
    assert frozen[8:] == [[]] * 8


def test_few_steps_and_no_freezing():
    schedule = ULMFiT(unfreeze_until=0)
    assert not any(schedule.is_frozen(place, 3, 0.0) for place in (1, 2, 3))
    assert [schedule.rate_over_time(t, 3) for t in range(3)] == pytest.approx([1.0, 1 - 31 / 96, 1 - 62 / 96])


@pytest.mark.parametrize(
    ("keyword", "value"), [("decay", 0), ("ratio", 0), ("cut_fraction", 0), ("cut_fraction", 1), ("unfreeze_until", 2)]
)
def test_an_invalid_keyword_raises(keyword, value):
    with pytest.raises(ValueError, match=f"`{keyword}` should be"):
        ULMFiT(**{keyword: value})
