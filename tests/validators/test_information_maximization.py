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
