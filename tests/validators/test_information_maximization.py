import math

import pytest
import torch

from hf_transfer.validators.entropy import entropy
from hf_transfer.validators.information_maximization import information_maximization


def test_value_against_the_formula_on_target_rows_only(evaluation_set):
    features, logits, domain, labels = evaluation_set
    p = logits[24:].softmax(1)
    mean = p.mean(0).tolist()
    expected = -sum(m * math.log(m) for m in mean) - sum(-x * math.log(x) for row in p.tolist() for x in row) / len(p)
    assert information_maximization(features, logits, domain, labels) == pytest.approx(expected, abs=1e-6)


def test_certain_and_diverse_is_best_and_a_collapse_is_seen():
    features, domain = torch.zeros(3, 1), torch.ones(3)
    diverse, collapsed = 1e3 * torch.eye(3), 1e3 * torch.eye(3)[[0, 0, 0]]
    assert information_maximization(features, diverse, domain) == pytest.approx(math.log(3))
    assert information_maximization(features, collapsed, domain) == pytest.approx(0.0, abs=1e-12)
    assert entropy(features, diverse, domain) == entropy(features, collapsed, domain)


def test_no_target_row_raises(evaluation_set):
    features, logits, _, _ = evaluation_set
    with pytest.raises(ValueError, match="target rows"):
        information_maximization(features, logits, torch.zeros(40))


def test_a_prior_stands_in_place_of_even_shares(evaluation_set):
    features, logits, domain, labels = evaluation_set
    even = torch.full((logits.shape[1],), 1 / logits.shape[1])
    plain = information_maximization(features, logits, domain, labels)
    assert information_maximization(features, logits, domain, labels, even) == pytest.approx(plain)
    prior = torch.arange(1.0, logits.shape[1] + 1)
    p = logits[24:].double().softmax(1)
    mean, q = p.mean(0), prior / prior.sum()
    divergence = sum(m * math.log(m / s) for m, s in zip(mean.tolist(), q.tolist()))
    expected = math.log(len(q)) - divergence + (p * p.log()).sum(1).mean().item()
    assert information_maximization(features, logits, domain, labels, prior) == pytest.approx(expected, abs=1e-6)


def test_with_a_prior_the_right_shares_beat_even_ones():
    """Five in six rows are of one class: even answers win without the prior, right ones with it."""
    features, domain, prior = torch.zeros(6, 1), torch.ones(6), torch.tensor([5 / 6, 1 / 6])
    right, even = (40 * torch.eye(2)[rows] for rows in ([0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1]))
    assert information_maximization(features, right, domain) < information_maximization(features, even, domain)
    scores = [information_maximization(features, one, domain, prior=prior) for one in (right, even)]
    assert scores[0] == pytest.approx(math.log(2)) and scores[0] > scores[1]


def test_a_prior_without_a_class_is_refused():
    with pytest.raises(ValueError, match="`prior` should hold positive class shares"):
        information_maximization(torch.zeros(2, 1), torch.eye(2), torch.ones(2), prior=torch.tensor([1.0, 0.0]))
