"""Shares of the predicted classes, and what is said of them."""

import pytest
import torch

from hf_transfer.evaluation.class_shares import ClassShares

NAMES = ["no", "yes"]


def shares(source_yes: int, target_yes: int, rows: int = 100) -> ClassShares:
    """Of `rows` rows of each domain, so many labelled or predicted as "yes"."""
    labels = torch.cat([(torch.arange(rows) < source_yes).long(), torch.full((rows,), -100)])
    answers = torch.cat([torch.zeros(rows).long(), (torch.arange(rows) < target_yes).long()])
    domain = torch.arange(2 * rows) // rows
    return ClassShares.of(torch.nn.functional.one_hot(answers, 2).float(), domain, labels)


def test_the_shares_are_of_source_labels_and_target_predictions():
    found = shares(17, 60)
    assert found.source.tolist() == pytest.approx([0.83, 0.17]) and found.target.tolist() == pytest.approx([0.4, 0.6])
    assert found.distance == pytest.approx(0.43) and found.target_rows == 100


def test_alike_shares_are_not_warned_of():
    assert shares(17, 25).warnings(NAMES) == []
    assert shares(3, 2).warnings(NAMES) == []


def test_a_collapse_to_the_frequent_class():
    """17 % positives in the source and none among the predictions, whatever the target holds."""
    first, second = shares(17, 0).warnings(NAMES)
    assert first.startswith("100% of the target rows are predicted as `no`, which has 83%") and "collapsed" in first
    assert second == "Never predicted on the target: `yes` (17% of the source)."


def test_a_rare_class_that_is_lost_is_named_and_a_few_expected_rows_are_not():
    (only,) = shares(12, 0, rows=200).warnings(NAMES)
    assert only == "Never predicted on the target: `yes` (6% of the source)."
    assert shares(4, 0).warnings(NAMES) == []


def test_shares_far_from_the_source_are_said():
    (only,) = shares(17, 70).warnings(NAMES)
    assert "distance 0.53 of 1" in only and "may prefer the worse model" in only


@pytest.mark.parametrize("space", ["partial", "open"])
def test_a_target_that_is_said_to_differ_may(space):
    assert shares(50, 90).warnings(NAMES, {space}) == []
    assert len(shares(50, 100).warnings(NAMES, {space})) == 1


def test_shares_that_were_estimated_are_what_predictions_are_compared_with():
    expected = torch.tensor([0.3, 0.7])
    assert shares(17, 70).warnings(NAMES, expected=expected) == []
    (only,) = shares(17, 20).warnings(NAMES, expected=expected)
    assert "far from those that were estimated before the training (distance 0.50 of 1)" in only
