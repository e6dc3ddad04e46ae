import math

import pytest
import torch

from hf_transfer.evaluation.divergences import (
    DomainRows,
    Estimate,
    bound_table,
    estimate_divergences,
)

NAMES = {"a_distance", "hdh", "disparity", "localized_disparity", "source_error", "target_error", "ideal_joint_error"}


def cues(agree: bool, count: int = 240, seed: int = 0) -> DomainRows:
    """Two cues, of which the first is the label; the second agrees with it or is independent of it."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (count, 2), generator=generator) * 2.0 - 1.0
    if agree:
        signs[:, 1] = signs[:, 0]
    labels = (signs[:, 0] > 0).long()
    return DomainRows(signs + 0.1 * torch.randn(count, 2, generator=generator), labels, labels)


def cloud(place: float, count: int = 400, seed: int = 0) -> DomainRows:
    """A normal cloud in three dimensions; the label is the sign of the last."""
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return DomainRows(points + torch.tensor([place, 0.0, 0.0]), (points[:, 2] > 0).long())


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """Two or three features need no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_transfer.functional.hypotheses.STEPS", 60)
        yield


@pytest.fixture(scope="module")
def there_and_back():
    """The estimates of A -> B and of B -> A, where a good hypothesis of A may fail on B and none of B on A."""
    agreeing, independent = cues(agree=True), cues(agree=False, seed=1)
    return estimate_divergences(agreeing, independent, splits=1), estimate_divergences(independent, agreeing, splits=1)


@pytest.fixture
def hasty(monkeypatch):
    """For what does not depend on the fit."""
    monkeypatch.setattr("hf_transfer.functional.hypotheses.STEPS", 2)


def test_the_localised_estimate_is_asymmetric_and_the_symmetric_one_is_not(there_and_back):
    forth, back = there_and_back
    assert forth["localized_disparity"].value > 0.3, "a hypothesis that is right on A may fail on half of B"
    assert abs(back["localized_disparity"].value) < 0.05, "none that is right on B fails on A"
    assert abs(forth["hdh"].value - back["hdh"].value) < 0.15


def test_a_restricted_supremum_is_smaller(there_and_back):
    for estimates in there_and_back:
        assert estimates["localized_disparity"].value <= estimates["disparity"].value + 0.05
        assert estimates["disparity"].value <= estimates["hdh"].value + 0.1


def test_the_bounds_hold_where_every_label_is_known(there_and_back):
    for estimates in there_and_back:
        assert estimates.keys() == NAMES
        for row in bound_table(estimates):
            assert row["sum"] == pytest.approx(row["source_error"] + row["discrepancy"] + row["ideal_joint_error"])
            assert row["target_error"] <= row["sum"] + 0.05


def test_two_halves_of_one_set_are_no_distance_apart_and_separable_ones_two():
    whole = DomainRows(cloud(0.0, count=800).features)
    even, odd = (whole.rows(torch.arange(800) % 2 == half) for half in (0, 1))
    near = estimate_divergences(even, odd, splits=2)
    assert abs(near["a_distance"].value) < 0.25
    far = estimate_divergences(even, DomainRows(cloud(9.0, seed=1).features), splits=2)
    assert far["a_distance"].value > 1.95
    assert far["hdh"].value > 0.9
    assert far["a_distance"].standard_error < 0.1


def test_the_a_distance_is_what_an_ideal_classifier_gives(hasty):
    """Clouds one deviation apart: the Bayes error is Phi(-1/2)."""
    found = estimate_divergences(cloud(0.0, 2000), cloud(1.0, 2000, seed=1), splits=1)["a_distance"]
    bayes = 0.5 * math.erfc(0.5 / math.sqrt(2))
    assert found.value == pytest.approx(2 * (1 - 2 * bayes), abs=0.12)
    assert found.standard_error is None and found.splits == 1


def test_what_is_unknown_is_left_out(hasty):
    rows = cloud(0.0, count=40)
    bare = DomainRows(rows.features)
    assert estimate_divergences(bare, bare, splits=1).keys() == {"a_distance", "hdh"}
    predicted = DomainRows(rows.features, None, rows.labels)
    assert estimate_divergences(predicted, predicted, splits=1).keys() == {"a_distance", "hdh", "disparity"}
    hidden = DomainRows(rows.features, torch.full((40,), -100))
    found = estimate_divergences(rows, hidden, splits=1)
    assert found.keys() == NAMES - {"target_error", "ideal_joint_error"}
    assert [row["sum"] for row in bound_table(found)] == [None] * 3
    assert [row["target_error"] for row in bound_table(found)] == [None] * 3


def test_a_disparity_is_never_below_that_of_the_model_itself(hasty):
    """Few rows of one cloud: an adversary that is hardly fitted does worse than h' = h on the rows it has not seen."""
    rows, others = cloud(0.0, 12), cloud(0.0, 12, seed=1)
    for seed in range(4):
        found = estimate_divergences(rows, others, splits=1, seed=seed)
        assert found["disparity"].value >= 0 and found["localized_disparity"].value >= 0


def test_a_source_with_few_labels(hasty):
    """A half may have none."""
    rows = cloud(0.0, 12)
    few = DomainRows(rows.features, torch.where(torch.arange(12) == 3, rows.labels, -100))
    found = estimate_divergences(few, rows, splits=4)
    assert not any(math.isnan(estimate.value) for estimate in found.values())


def test_the_standard_error_is_the_corrected_one():
    estimate = Estimate.of([0.1, 0.3])
    assert estimate.value == pytest.approx(0.2)
    assert estimate.standard_error == pytest.approx(math.sqrt((1 / 2 + 1) * 0.02))


def test_the_seed_decides(hasty):
    rows, others = cloud(0.0, 60), cloud(0.5, 60, seed=1)
    first, again, other = (estimate_divergences(rows, others, splits=1, seed=seed) for seed in (0, 0, 1))
    assert first == again and first != other


@pytest.mark.parametrize("keyword", ["splits", "slack"])
def test_an_invalid_keyword_raises(keyword):
    with pytest.raises(ValueError, match=f"`{keyword}` should be positive"):
        estimate_divergences(cloud(0.0, 8), cloud(0.0, 8), **{keyword: 0})


def test_rows_that_cannot_be_compared():
    with pytest.raises(ValueError, match="at least 4 rows, got 3 of the source and 8 of the target"):
        estimate_divergences(cloud(0.0, 3), cloud(0.0, 8))
    with pytest.raises(ValueError, match="one width, got 3 and 2"):
        estimate_divergences(cloud(0.0, 8), cues(True, 8))
