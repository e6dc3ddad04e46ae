import pytest
import torch

from hf_transfer.ranking.reservoir import ReservoirScore, means_without_each_shard


class Kept(ReservoirScore):
    paper = "none"

    def value(self, statistics):
        return float(statistics["features"].mean()), {"rows": sorted(statistics["features"][:, 0].tolist())}


def numbered(rows):
    return torch.arange(rows).float()[:, None], torch.zeros(rows, dtype=torch.long)


def kept_rows(score):
    return score.compute().diagnostics["rows"]


def test_a_small_dataset_is_kept_whole():
    score = Kept(max_rows=200)
    score.update(*numbered(150))
    assert kept_rows(score) == list(range(150))


def test_the_sample_depends_on_neither_batches_nor_processes():
    features, labels = numbered(9000)
    whole, batches, first, second = Kept(max_rows=100), Kept(max_rows=100), Kept(max_rows=100), Kept(max_rows=100)
    whole.update(features, labels)
    for batch in torch.arange(9000).split(77):
        batches.update(features[batch], labels[batch])
    second.next_row = 4000
    first.update(features[:4000], labels[:4000])
    second.update(features[4000:], labels[4000:])
    first.merge(second)
    assert len(kept_rows(whole)) == 100
    assert kept_rows(whole) == kept_rows(batches) == kept_rows(first)


def test_the_sample_is_spread_over_the_dataset():
    score = Kept(max_rows=200)
    score.update(*numbered(10_000))
    parts = torch.tensor(kept_rows(score)).histc(bins=10, min=0, max=10_000)
    assert parts.min() >= 10 and parts.max() <= 30


def test_means_without_each_shard():
    shards = [{"labels": torch.zeros(2)}, {"labels": torch.zeros(1)}, {"labels": torch.zeros(3)}]
    values = torch.tensor([1.0, 2.0, 6.0, 3.0, 4.0, 5.0])
    assert means_without_each_shard(values, shards) == pytest.approx([18 / 4, 15 / 5, 9 / 3])


def test_rows_of_a_large_dataset_are_spread_too():
    score = Kept(max_rows=200)
    places = torch.arange(900_000_000, 900_010_000)
    score.update(*numbered(10_000), places)
    parts = torch.tensor(kept_rows(score)).histc(bins=10, min=0, max=10_000)
    assert parts.min() >= 10 and parts.max() <= 30


def test_rows_are_kept_in_single_precision():
    score = Kept(max_rows=10, shards=10)
    score.update(torch.arange(100).double()[:, None] + 0.1, torch.zeros(100, dtype=torch.long))
    score.total()
    assert all(shard["features"].dtype == torch.float32 and len(shard["labels"]) == 1 for shard in score.shards)
    assert Kept().max_rows == 5000 and len(Kept(shards=3).shards) == 3


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="max_rows"):
        Kept(max_rows=5)
