import math

import pytest
import torch

from hf_transfer.validators.entropy import entropy


def test_value_against_the_formula_on_target_rows_only(evaluation_set):
    features, logits, domain, labels = evaluation_set
    rows = logits[24:].softmax(1).tolist()
    expected = sum(p * math.log(p) for row in rows for p in row) / len(rows)
    assert entropy(features, logits, domain, labels) == pytest.approx(expected, abs=1e-6)
    assert entropy(features[24:], logits[24:], None) == pytest.approx(expected, abs=1e-6)


def test_certain_predictions_score_highest():
    domain = torch.ones(4)
    uncertain = entropy(torch.zeros(4, 1), torch.zeros(4, 3), domain)
    assert entropy(torch.zeros(4, 1), 100 * torch.eye(4)[:, :3], domain) > uncertain == pytest.approx(-math.log(3))


def test_no_target_row_raises(evaluation_set):
    features, logits, _, _ = evaluation_set
    with pytest.raises(ValueError, match="target rows"):
        entropy(features, logits, torch.zeros(40))
