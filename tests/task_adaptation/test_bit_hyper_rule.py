import pytest

from hf_transfer.task_adaptation.bit_hyper_rule import BiTHyperRule, length_of


def naive(step: int, rows: int) -> float:
    """As the table says, for a training of the rule's own length."""
    table = {
        500: (100, [200, 300, 400]),
        10_000: (500, [3_000, 6_000, 9_000]),
        20_000: (500, [6_000, 12_000, 18_000]),
    }
    warm_up, decays = table[500 if rows < 20_000 else 10_000 if rows < 500_000 else 20_000]
    rate = step / warm_up if step < warm_up else 1.0
    for decay in decays:
        if step >= decay:
            rate = rate / 10
    return rate


@pytest.mark.parametrize(
    "rows, steps", [(1, 500), (19_999, 500), (20_000, 10_000), (499_999, 10_000), (500_000, 20_000)]
)
def test_every_step_against_the_table(rows, steps):
    assert length_of(rows).steps == steps
    schedule = BiTHyperRule(rows)
    for step in range(steps):
        assert schedule.rate_over_time(step, steps) == pytest.approx(naive(step, rows)), step


def test_another_length_has_the_same_shape():
    schedule = BiTHyperRule(100)
    rates = [schedule.rate_over_time(step, 50) for step in range(50)]
    assert rates == pytest.approx([naive(10 * step, 100) for step in range(50)])
    assert rates[0] == 0.0 and max(rates) == 1.0 and rates[-1] == pytest.approx(1e-3)


def test_all_layers_train_alike():
    schedule = BiTHyperRule(100)
    assert {schedule.rate(place) for place in range(5)} == {1.0} and not schedule.is_frozen(3, 4, 0.0)


@pytest.mark.parametrize("rows", [0, -5])
def test_no_rows_are_refused(rows):
    with pytest.raises(ValueError, match="`rows` should be positive"):
        BiTHyperRule(rows)
