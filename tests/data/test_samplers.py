from collections import Counter
from itertools import islice

import pytest
import torch

from hf_transfer.data.samplers import DomainBalancedSampler, ShuffleSampler, WeightedSampler, permutation


def order_of(sampler, epoch: int) -> list[int]:
    sampler.set_epoch(epoch)
    return list(sampler)


def batches_of(sampler: DomainBalancedSampler, epoch: int = 0) -> list[list[int]]:
    rows = order_of(sampler, epoch)
    return [rows[start : start + sampler.batch_size] for start in range(0, len(rows), sampler.batch_size)]


def test_every_row_once_an_epoch_in_another_order_each_time():
    sampler = ShuffleSampler(50, seed=3)
    orders = [order_of(sampler, epoch) for epoch in range(4)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert len(sampler) == 50


def test_the_order_depends_on_seed_and_epoch_alone():
    sampler = ShuffleSampler(50, seed=3)
    first = order_of(sampler, 2)
    order_of(sampler, 7)
    assert order_of(sampler, 2) == first == order_of(ShuffleSampler(50, seed=3), 2)
    assert order_of(ShuffleSampler(50, seed=4), 2) != first


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="the dataset is empty"):
        ShuffleSampler(0)
    with pytest.raises(ValueError, match="the dataset is empty"):
        DomainBalancedSampler([], batch_size=4)


def test_permutations_of_different_keys_differ():
    keys = [
        (seed, epoch, domain, lap) for seed in range(3) for epoch in range(4) for domain in range(3) for lap in (0, 1)
    ]
    assert len({tuple(permutation(20, *key)) for key in keys}) == len(keys)
    assert sorted(permutation(20, 1)) == list(range(20))


def test_every_batch_is_half_source_and_half_target():
    domains = [0] * 30 + [1] * 7
    sampler = DomainBalancedSampler(domains, batch_size=8)
    batches = batches_of(sampler)
    assert len(batches) == 8 and len(sampler) == 64, "30 source rows, 4 a batch"
    for batch in batches:
        assert [domains[row] for row in batch] == [0] * 4 + [1] * 4


def test_a_domain_that_is_left_out_changes_no_row_of_the_others():
    domains = [0] * 30 + [1] * 70
    whole = DomainBalancedSampler(domains, batch_size=8, num_processes=3)
    rest = DomainBalancedSampler(domains, batch_size=8, num_processes=3, left_out=[1])
    assert batches_of(rest, epoch=1) == [batch[:4] for batch in batches_of(whole, epoch=1)]
    assert len(rest) == 4 * 18, "as many batches as both domains need"


def test_the_larger_domain_is_read_once_and_the_smaller_in_whole_laps():
    domains = [0] * 28 + [1] * 7
    rows = [row for batch in batches_of(DomainBalancedSampler(domains, batch_size=8)) for row in batch]
    counts = Counter(rows)
    assert {counts[row] for row in range(28)} == {1}
    assert {counts[row] for row in range(28, 35)} == {4}
    laps = [row for row in rows if row >= 28]
    orders = [tuple(laps[start : start + 7]) for start in range(0, 28, 7)]
    assert all(sorted(order) == list(range(28, 35)) for order in orders)
    assert len(set(orders)) > 1, "each lap has an order of its own"


def test_three_domains_share_a_batch_alike():
    domains = [5, 9, -1] * 10
    for batch in batches_of(DomainBalancedSampler(domains, batch_size=6)):
        assert Counter(domains[row] for row in batch) == {5: 2, 9: 2, -1: 2}


def test_epochs_differ_and_come_back():
    sampler = DomainBalancedSampler([0, 1] * 20, batch_size=4, seed=1)
    first = order_of(sampler, 0)
    assert order_of(sampler, 1) != first
    assert order_of(DomainBalancedSampler([0, 1] * 20, batch_size=4, seed=1), 0) == first
    assert order_of(DomainBalancedSampler([0, 1] * 20, batch_size=4, seed=2), 0) != first


@pytest.mark.parametrize("rows", [5, 16, 33])
def test_two_processes_read_what_one_reads_with_twice_the_batch(rows):
    domains = [0] * rows + [1] * 9
    two = batches_of(DomainBalancedSampler(domains, batch_size=4, num_processes=2))
    one = batches_of(DomainBalancedSampler(domains, batch_size=8))
    assert len(two) == 2 * len(one)
    for place, batch in enumerate(one):
        assert sorted(two[2 * place] + two[2 * place + 1]) == sorted(batch)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match=r"multiple of the number of domains \(2\), got 5"):
        DomainBalancedSampler([0, 1], batch_size=5)


def test_a_domain_smaller_than_its_share_is_repeated():
    sampler = DomainBalancedSampler([0, 0, 0, 0, 1], batch_size=8)
    assert Counter(islice(sampler, 8)) == {0: 1, 1: 1, 2: 1, 3: 1, 4: 4}


def test_rows_are_drawn_with_replacement_in_proportion_to_their_weights():
    weights = [0.0, 1.0, 0.0, 3.0, 6.0, 0.0]
    sampler = WeightedSampler(weights * 500, seed=1)
    drawn = order_of(sampler, 0)
    assert len(drawn) == len(sampler) == 3000 and len(set(drawn)) < len(drawn)
    counts = Counter(row % 6 for row in drawn)
    assert counts.keys() == {1, 3, 4}
    for place in counts:
        assert counts[place] / 3000 == pytest.approx(weights[place] / 10, abs=0.03)


def test_a_weighted_draw_depends_on_seed_and_epoch_alone():
    sampler = WeightedSampler([1.0, 2.0, 3.0] * 20, seed=3)
    first = order_of(sampler, 2)
    assert order_of(sampler, 7) != first
    assert order_of(sampler, 2) == first == order_of(WeightedSampler([1.0, 2.0, 3.0] * 20, seed=3), 2)
    assert order_of(WeightedSampler([1.0, 2.0, 3.0] * 20, seed=4), 2) != first


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0], [1.0, float("nan")], [float("inf"), 1.0]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="`sampling_weight` should hold numbers from 0 on"):
        WeightedSampler(weights)
    with pytest.raises(ValueError, match="the dataset is empty"):
        WeightedSampler([])


@pytest.mark.parametrize("at, row", [(0.0, 1), (1.0, 3)])
def test_a_row_of_weight_0_is_not_drawn_at_the_edges_either(monkeypatch, at, row):
    sampler = WeightedSampler([0.0, 1.0, 0.0, 3.0, 0.0])
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, at, dtype=torch.double))
    assert set(order_of(sampler, 0)) == {row}
