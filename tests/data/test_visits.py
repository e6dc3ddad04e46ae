import pytest
import torch
from datasets import Dataset
from transformers import default_data_collator

from hf_transfer.data.samplers import DomainBalancedSampler, ShuffleSampler
from hf_transfer.data.visits import (
    VISIT_COLUMN,
    NumberingCollator,
    Visit,
    VisitedRows,
    VisitSampler,
    is_repeatable,
)


def test_a_sampler_of_visits_gives_the_rows_of_the_sampler_it_wraps():
    plain, visits = ShuffleSampler(5, seed=1), VisitSampler(ShuffleSampler(5, seed=1))
    for epoch in (0, 3):
        plain.set_epoch(epoch)
        visits.set_epoch(epoch)
        assert list(visits) == [Visit(row, epoch, 0) for row in plain]
    assert len(visits) == 5


def test_a_row_that_comes_again_in_an_epoch_is_in_its_next_lap():
    visits = list(VisitSampler(DomainBalancedSampler([0, 0, 0, 0, 1, 1], batch_size=2)))
    assert sorted(visit.lap for visit in visits if visit.row >= 4) == [0, 0, 1, 1]
    assert {visit.lap for visit in visits if visit.row < 4} == {0}
    assert len(set(visits)) == len(visits)


def test_rows_come_with_their_visit():
    rows = VisitedRows(Dataset.from_dict({"x": [10, 11, 12]}))
    visits = [Visit(2, 0, 0), Visit(0, 1, 0)]
    assert rows[visits[0]] == {"x": 12, VISIT_COLUMN: visits[0]}
    assert rows.__getitems__(visits) == [rows[visit] for visit in visits] and len(rows) == 3


def test_seeds_differ_with_every_part_of_a_visit():
    visits = [Visit(row, epoch, lap) for row in range(20) for epoch in range(20) for lap in range(3)]
    seeds = {visit.seed(seed) for visit in visits for seed in (0, 1)}
    assert len(seeds) == 2 * len(visits) and all(0 <= seed < 2**63 for seed in seeds)
    assert Visit(1, 2, 3).seed(4) == Visit(1, 2, 3).seed(4) != pytest.approx(0)


def test_batches_come_with_the_numbers_of_their_rows():
    rows = VisitedRows(Dataset.from_dict({"x": [10, 11, 12]}))
    batch = NumberingCollator(default_data_collator)(rows.__getitems__([Visit(2, 0, 0), Visit(0, 1, 0)]))
    assert {name: value.tolist() for name, value in batch.items()} == {"x": [12, 10], "row_numbers": [2, 0]}


def test_rows_that_change_are_seen():
    rows = Dataset.from_dict({"x": [10.0, 11.0, 12.0]})
    state = torch.get_rng_state()
    assert is_repeatable(default_data_collator, rows)
    assert not is_repeatable(lambda items: {"x": torch.randn(len(items))}, rows)
    assert not is_repeatable(NumberingCollator(default_data_collator), rows), "it may draw by visits"
    drawn = rows.with_transform(lambda batch: {"x": torch.rand(len(batch["x"])).tolist()})
    assert not is_repeatable(default_data_collator, drawn)
    assert torch.equal(torch.get_rng_state(), state)
