"""Samplers for any number of rows, domains, classes, seeds and processes."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from hf_transfer.data.episodes import EpisodeSampler
from hf_transfer.data.samplers import DomainBalancedSampler, ShuffleSampler, WeightedSampler, permutation
from tests.properties import drawn

SEEDS = st.integers(-(2**63), 2**63 - 1)
EPOCHS = st.integers(0, 1000)


def at(sampler: ShuffleSampler, epoch: int) -> list[int]:
    sampler.set_epoch(epoch)
    return list(sampler)


@drawn
@given(st.integers(1, 200), SEEDS, EPOCHS)
def test_a_shuffle_has_every_row_once_and_is_the_same_again(rows, seed, epoch):
    order = at(ShuffleSampler(rows, seed), epoch)
    assert sorted(order) == list(range(rows)) and order == at(ShuffleSampler(rows, seed), epoch)
    assert rows < 20 or order != at(ShuffleSampler(rows, seed), epoch + 1)


@drawn
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), SEEDS, EPOCHS)
def test_a_row_without_weight_is_never_drawn(weights, seed, epoch):
    weights = [*weights, 1.0]
    order = at(WeightedSampler(weights, seed), epoch)
    assert len(order) == len(weights) and all(weights[row] > 0 for row in order)
    assert order == at(WeightedSampler(weights, seed), epoch)


@drawn
@given(
    st.lists(st.integers(-2, 3), min_size=1, max_size=60),
    st.integers(1, 4),
    st.integers(1, 3),
    SEEDS,
    EPOCHS,
)
def test_batches_hold_every_domain_alike_and_every_row(domains, share, processes, seed, epoch):
    kinds = sorted(set(domains))
    batch_size = share * len(kinds)
    sampler = DomainBalancedSampler(domains, batch_size, seed, processes)
    order = at(sampler, epoch)
    assert len(order) == len(sampler) and len(order) % (batch_size * processes) == 0
    for start in range(0, len(order), batch_size):
        found = Counter(domains[row] for row in order[start : start + batch_size])
        assert found == Counter(dict.fromkeys(kinds, share))
    assert set(order) == set(range(len(domains)))
    drawn_of = Counter(order)
    for kind in kinds:  # a domain starts over when each of its rows has been drawn
        times = [drawn_of[row] for row, domain in enumerate(domains) if domain == kind]
        assert max(times) - min(times) <= 1
    assert order == at(DomainBalancedSampler(domains, batch_size, seed, processes), epoch)
    skipped = len(order) // 2
    assert list(islice(sampler, skipped, None)) == order[skipped:]


@drawn
@given(st.data(), st.integers(2, 4), st.integers(1, 3), st.integers(1, 3), SEEDS)
def test_episodes_hold_so_many_rows_of_so_many_classes(data, ways, shots, queries, seed):
    classes = data.draw(st.integers(ways, 6))
    labels = [label for label in range(classes) for _ in range(shots + queries + data.draw(st.integers(0, 3)))]
    sampler = EpisodeSampler(labels, ways, shots, queries, seed, num_episodes=5)
    for number in range(5):
        rows = sampler.episode(number)
        assert len(set(rows)) == len(rows) == ways * (shots + queries)
        assert set(Counter(labels[row] for row in rows).values()) == {shots + queries}
        assert rows == EpisodeSampler(labels, ways, shots, queries, seed, num_episodes=5).episode(number)


@drawn
@given(st.integers(1, 50), st.lists(SEEDS, min_size=1, max_size=4))
def test_a_permutation_follows_from_its_keys(size, keys):
    assert sorted(permutation(size, *keys)) == list(range(size)) and permutation(size, *keys) == permutation(
        size, *keys
    )
