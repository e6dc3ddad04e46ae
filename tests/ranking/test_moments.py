import torch

from hf_transfer.ranking import HScore, LogME
from hf_transfer.ranking.moments import add_gram, second_moments, symmetric


def test_sums_over_the_rows():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.float64)
    moments = second_moments(features, torch.tensor([0, 2, 0]))
    assert symmetric(moments["gram"]).tolist() == [[35, 44], [44, 56]]
    assert moments["cross"].tolist() == [[6, 0, 3], [8, 0, 4]]
    assert moments["energy"].tolist() == [2, 0, 1] and moments["rows"].tolist() == [3]
    values = second_moments(features, torch.tensor([0.5, 1.0, 2.0]))
    assert values["cross"].tolist() == [[13.5], [17.0]] and values["energy"].tolist() == [5.25]


def test_the_lower_triangle_of_many_columns():
    features = torch.randn(50, 250, dtype=torch.float64)
    gram = torch.zeros(250, 250, dtype=torch.float64)
    for batch in features.split(20):
        add_gram(gram, batch)
    torch.testing.assert_close(symmetric(gram), features.T @ features)
    assert gram[:96, 96:].count_nonzero() == 0


def test_merging_leaves_the_other_as_it_was():
    features, labels = torch.randn(60, 5), torch.arange(60) % 3
    for kind in (LogME, HScore):
        first, second = kind(), kind()
        second.update(features[30:], labels[30:], torch.arange(30, 60))
        alone = second.compute()
        first.merge(second)
        first.update(features[:30], labels[:30])
        first.total()
        assert second.compute() == alone


def test_an_answer_changes_with_later_rows():
    features, labels = torch.randn(60, 5), torch.arange(60) % 3
    for shards in (1, 10):
        score, whole = LogME(shards=shards), LogME(shards=shards)
        score.update(features[:40], labels[:40])
        early = score.compute().value
        score.update(features[40:], labels[40:])
        whole.update(features, labels)
        assert abs(score.compute().value - whole.compute().value) < 1e-12 != abs(early - whole.compute().value)
