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


def test_several_labels_and_classes_of_any_whole_type():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.float64)
    several = second_moments(features, torch.tensor([[1, 0], [1, 1], [0, 1]]))
    assert several["cross"].tolist() == [[4, 8], [6, 10]] and several["energy"].tolist() == [2, 2]
    values = second_moments(features, torch.tensor([[0.5, 2.0], [1.0, 0.0], [2.0, 1.0]]))
    assert values["cross"].tolist() == [[13.5, 7], [17.0, 10]] and values["energy"].tolist() == [5.25, 5]
    for dtype in (torch.uint8, torch.int16):
        assert second_moments(features, torch.tensor([0, 2, 0], dtype=dtype))["cross"].tolist() == [
            [6, 0, 3],
            [8, 0, 4],
        ]


def test_the_total_of_shards_that_were_filled_twice():
    features, labels = torch.randn(60, 5), torch.cat([torch.zeros(40), torch.arange(20) % 4]).long()
    score = HScore(shrinkage=True, shards=3)
    score.update(features[:40], labels[:40])
    score.total()
    score.update(features[40:], labels[40:])
    total, rows = score.total(), features.double()
    one_hot = torch.eye(4, dtype=torch.float64)[labels]
    norms = torch.tensor([float(row @ row) for row in rows], dtype=torch.float64)
    expected = {
        "rows": torch.tensor([60.0]),
        "cross": torch.stack([sum(row[column] * y for row, y in zip(rows, one_hot)) for column in range(5)]),
        "energy": one_hot.sum(dim=0),
        "norms": norms.sum()[None],
        "quartic": (norms**2).sum()[None],
        "cubic": sum(norm * row for norm, row in zip(norms, rows)),
    }
    assert total.keys() == {"gram", *expected}
    torch.testing.assert_close(symmetric(total["gram"]), sum(torch.outer(row, row) for row in rows))
    for name, value in expected.items():
        torch.testing.assert_close(total[name], value.double(), msg=name)
