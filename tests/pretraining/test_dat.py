import pytest
import torch

from hf_transfer.pretraining.dat import dat_weights

SOURCE = torch.tensor([0] * 10 + [1] * 30 + [2] * 60)


def probabilities(rows=50, classes=3, seed=0):
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)).softmax(dim=1)


def test_weights_against_the_formula():
    target = probabilities()
    found = dat_weights(target, SOURCE)
    shares = {0: 0.1, 1: 0.3, 2: 0.6}
    for label, share in shares.items():
        assert found.weights[label].item() == pytest.approx(target[:, label].mean().item() / share, rel=1e-5)
    of_rows = found.of_rows(SOURCE)
    assert of_rows.shape == (100,) and of_rows.mean().item() == pytest.approx(1.0)
    assert found.effective_rows == pytest.approx((of_rows.sum() ** 2 / of_rows.square().sum()).item())
    assert found.lost_share == 0 and 0 < found.effective_rows < 100


def test_a_target_like_the_source_weighs_all_rows_alike():
    target = torch.tensor([[0.1, 0.3, 0.6]]).repeat(7, 1)
    found = dat_weights(target, SOURCE)
    torch.testing.assert_close(found.weights, torch.ones(3, dtype=torch.double))
    assert found.effective_rows == pytest.approx(100)


def test_the_weighted_source_is_as_the_target():
    """What it is for: E_s[w(y) f(y)] = E_t[f(y)]."""
    target, f = probabilities(), torch.tensor([3.0, -1.0, 0.5], dtype=torch.double)
    weighted = (dat_weights(target, SOURCE).of_rows(SOURCE) * f[SOURCE]).mean()
    assert weighted.item() == pytest.approx((target.double().mean(0) @ f).item(), rel=1e-5)


def test_one_class_alone_is_worth_its_rows():
    found = dat_weights(torch.tensor([[0.0, 1.0, 0.0]]), SOURCE)
    assert found.weights.tolist() == pytest.approx([0, 100 / 30, 0]) and found.effective_rows == pytest.approx(30)


def test_large_weights_are_cut_and_all_are_scaled():
    target = torch.tensor([[0.8, 0.1, 0.1]])  # weights 8, 1/3, 1/6
    found = dat_weights(target, SOURCE, max_weight=2.0)
    cut = torch.tensor([2.0, 1 / 3, 1 / 6], dtype=torch.double)
    mean = 0.1 * 2 + 0.3 / 3 + 0.6 / 6
    torch.testing.assert_close(found.weights, cut / mean)
    assert found.effective_rows > dat_weights(target, SOURCE).effective_rows


def test_a_class_without_source_rows_has_no_weight_and_is_told():
    found = dat_weights(torch.tensor([[0.25, 0.25, 0.25, 0.25]]), SOURCE)
    assert found.weights[3] == 0 and found.lost_share == 0.25
    assert found.of_rows(SOURCE).mean().item() == pytest.approx(1.0) and found.weights.isfinite().all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"max_weight": 0.0}, "`max_weight` should be positive, got 0.0"),
        ({"source_labels": torch.tensor([0, 3])}, r"source labels should be in 0..2, .* got 0..3"),
        ({"source_labels": torch.tensor([-100, 1])}, r"got -100..1"),
        ({"source_labels": torch.tensor([], dtype=torch.long)}, "one of them has none"),
        ({"target_probabilities": torch.zeros(0, 3)}, "one of them has none"),
        ({"target_probabilities": torch.randn(4, 3)}, "take a softmax first"),
        ({"target_probabilities": torch.tensor([[0.0, 0.0, 0.0, 1.0]])}, "looks like no class"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        dat_weights(**{"target_probabilities": probabilities(), "source_labels": SOURCE, **arguments})
