import torch

from hf_transfer.ranking.moments import second_moments


def test_sums_over_the_rows():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.float64)
    moments = second_moments(features, torch.tensor([0, 2, 0]))
    assert moments["gram"].tolist() == [[35, 44], [44, 56]]
    assert moments["cross"].tolist() == [[6, 0, 3], [8, 0, 4]]
    assert moments["energy"].tolist() == [2, 0, 1] and moments["rows"].tolist() == [3]
    values = second_moments(features, torch.tensor([0.5, 1.0, 2.0]))
    assert values["cross"].tolist() == [[13.5], [17.0]] and values["energy"].tolist() == [5.25]
